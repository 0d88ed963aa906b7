"""Steps that run before training: label, calibrate, mine, search; check and convert what they wrote."""
