"""What tests need: a conformance suite for each seam, and providers on this machine that speak their protocols."""
