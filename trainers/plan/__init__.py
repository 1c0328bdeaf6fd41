"""What a run would take, worked out before anything of it is started."""
