"""What is done to a text before a model sees it: normalising and splitting, and the tables behind both."""
