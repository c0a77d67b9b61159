"""What may be recalled, in order. Pure."""
