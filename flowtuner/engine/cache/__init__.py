"""What the frozen models make of prompts and pictures, kept by content so that nothing is encoded twice."""
