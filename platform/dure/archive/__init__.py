"""What lies in the outputs: listed, compared with one another, and cleaned up, from what runs and studies left there."""
