"""`python -m lineal` and `torchrun -m lineal` are the command."""

import sys

from lineal.cli import main

sys.exit(main())
