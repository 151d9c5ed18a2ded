"""Fine-tuning pre-trained models on labelled texts: tasks from files, inputs, evaluation, and finished models."""
