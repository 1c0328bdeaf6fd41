"""The learner over several processes: who they are, how they start, what they say to each other."""
