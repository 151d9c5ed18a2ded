"""What is optimised: language modelling, preferences, and policy gradients as an algebra of seven slots."""
