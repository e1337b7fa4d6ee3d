"""How Sphinx makes the site: `make docs`, or CONTRIBUTING.md."""

import sys
from importlib.metadata import version as version_of
from importlib.resources import files
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "DistributedEstimator"
author = "DistributedEstimator maintainers"
copyright = author
release = version = version_of("distributed-estimator")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "docstrings",
    "outside_pages",
    "public_names",
]
# A folder's page in the repository; its index.md includes it.
exclude_patterns = ["README.md", "decisions/README.md", "**/.ipynb_checkpoints"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
# `--option` stays two hyphens.
smartquotes = False

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

# Every name in a text must lead somewhere. What leads to other packages does not: their
# inventories are on the network, which a build does without.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!distributed_estimator\b).*"),
    # What is handed through, and made and read by nobody outside.
    (
        r"py:.*",
        r"distributed_estimator\.(batch|subexperiments|cutting\.(circuit|gates|partition)"
        r"|pipeline\.priors|training\.robustness|analysis\.study\.data|study\.config)\..*",
    ),
    (r"py:class", r"distributed_estimator\.backends\.placement\.ServerT"),
]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
# Not spelt out as numpy.ndarray[tuple[Any, ...], numpy.dtype[numpy.float64]].
autodoc_type_aliases = {
    name: name for name in ("Arrays", "ComplexArray", "FloatArray", "IntArray", "Labels")
}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
# `Name` in a docstring is a link where it is a name, and code where it is not.
default_role = "py:obj"

html_theme = "furo"
html_title = "DistributedEstimator"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

# MathJax in one file beside the pages, instead of a CDN: reading makes no call to the network.
html_static_path.append(str(files("sphinx-mathjax-offline") / "static/mathjax/tex-svg.js"))
mathjax_path = "tex-svg.js"
