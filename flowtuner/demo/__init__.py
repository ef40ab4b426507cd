"""The demonstration: a tiny model learns coloured shapes, through the ordinary commands."""
