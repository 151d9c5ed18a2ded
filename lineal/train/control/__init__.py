"""What a policy-gradient run on an environment is made of: collecting, updating, evaluating, saving."""
