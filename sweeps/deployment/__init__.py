"""From a finished sweep to one file that keeps a budget on this device: candidates, artefacts, measurements, the choice."""
