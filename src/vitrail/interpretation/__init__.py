"""What models see, and how far it can be shown: arrays, no pictures."""
