"""Actor-learners: their loop, where they run, and who watches over them."""
