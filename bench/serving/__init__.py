"""The prediction API against its peers: the same models, the same core, in turns."""
