"""The teaching demos and the bundled example; each writes pictures, a model and its figures to a folder."""
