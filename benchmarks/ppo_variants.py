"""What PPO's clip is compared with in Table 1 of its paper, as values: `lineal run ppo-kl --algorithm ppo_variants.py:neither`."""

from dataclasses import replace

from lineal.objectives.penalty import OldKL
from lineal.objectives.policy import ppo_kl

fixed_kl = replace(ppo_kl, name="fixed-kl", penalty=(OldKL(3.0),))
neither = replace(ppo_kl, name="neither", penalty=())
