"""Where rewards come from: text tasks, reward functions and the processes they run in, chat templates."""
