"""Studies: a matrix of runs from one YAML file, run one after another, each kept in its folder."""
