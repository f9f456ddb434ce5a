"""Which Debian packages become which conda package, and what is left out of the conda channel and why."""

from __future__ import annotations

from .parts import words

# A library and its headers are one package, as conda has it, except where conda too splits them.
GROUPS: dict[str, tuple[str, ...]] = {
    "bzip2": ("libbz2-1.0", "libbz2-dev"),
    "cairo": ("libcairo2",),
    "fontconfig": ("libfontconfig1", "fontconfig-config"),
    "fonts-dejavu": ("fonts-dejavu-core",),
    "freetype": ("libfreetype6",),
    "fribidi": ("libfribidi0",),
    "glib": ("libglib2.0-0",),
    "gmp": ("libgmp10",),
    "graphite2": ("libgraphite2-3",),
    "harfbuzz": ("libharfbuzz0b",),
    "icu": ("libicu72", "libicu-dev"),
    "krb5": ("libkrb5-3", "libk5crypto3", "libkrb5support0", "libgssapi-krb5-2", "libcom-err2"),
    "lerc": ("liblerc4",),
    "libblas": ("libblas3", "libblas-dev"),
    "libcurl": ("libcurl4", "libcurl4-openssl-dev"),
    "libdeflate": ("libdeflate0",),
    "libexpat": ("libexpat1",),
    "libffi": ("libffi8",),
    "libgcc": ("libgcc-s1",),
    "libgfortran5": ("libgfortran5",),
    "libgomp": ("libgomp1",),
    "libjpeg-turbo": ("libjpeg62-turbo", "libjpeg62-turbo-dev"),
    "liblapack": ("liblapack3", "liblapack-dev"),
    "liblzma": ("liblzma5",),
    "liblzma-devel": ("liblzma-dev",),
    "libpng": ("libpng16-16", "libpng-dev"),
    "libquadmath": ("libquadmath0",),
    "libsqlite": ("libsqlite3-0",),
    "libstdcxx": ("libstdc++6",),
    "libtiff": ("libtiff6",),
    "libtirpc": ("libtirpc3", "libtirpc-dev", "libtirpc-common"),
    "libuuid": ("libuuid1",),
    "libuv": ("libuv1",),
    "libxml2": ("libxml2",),
    "libzlib": ("zlib1g",),
    "ncurses": ("libtinfo6", "libncursesw6"),
    "nlopt": ("libnlopt0",),
    "openssl": ("libssl3", "libssl-dev"),
    "pango": ("libpango-1.0-0", "libpangocairo-1.0-0", "libpangoft2-1.0-0"),
    "pcre2": ("libpcre2-8-0", "libpcre2-dev"),
    "pixman": ("libpixman-1-0",),
    "readline": ("libreadline8", "libreadline-dev"),
    "tk": ("libtcl8.6", "libtk8.6", "libxss1"),
    "xorg-libx11": ("libx11-6", "libx11-data"),
    "zlib": ("zlib1g-dev",),
    "zstd": ("libzstd1",),
}

# Programs, services and data that the base system has or that nothing here needs, and the JavaScript that Debian
# splits off R packages: the links to it are left out with it.
DROPPED = frozenset(
    words("""
    adduser ca-certificates debconf debianutils dpkg fontconfig gcc-12-base init-system-helpers install-info
    javascript-common libc-bin libpaper-utils libpaper1 libsasl2-modules-db littler lsb-base media-types pandoc perl
    perl-base python3 python3-minimal r-cran-littler r-cran-pkgkitten readline-common sensible-utils sysvinit-utils tzdata
    ucf unzip x11-common xdg-utils zip libpython3-stdlib fonts-font-awesome fonts-glyphicons-halflings fonts-mathjax
    libjs-bootstrap libjs-bootstrap4 libjs-d3 libjs-es5-shim libjs-highlight.js libjs-jquery libjs-jquery-datatables
    libjs-jquery-selectize.js libjs-jquery-ui libjs-json libjs-mathjax libjs-microplugin.js libjs-modernizr
    libjs-popper.js libjs-prettify libjs-sifter.js libjs-twitter-bootstrap-datepicker node-bootstrap-sass node-html5shiv
    node-normalize.css r-recommended
    """)
)

# What r-base depends on besides Debian's own list: what its build flags name, as r-base-dev has it.
R_BUILD = ("bzip2", "icu", "libblas", "libgfortran5", "liblapack", "liblzma-devel", "libtirpc", "pcre2", "readline", "zlib")

# The r-cran packages of Debian that are asked for; the rest follows from what they need.
R_ROOTS = words("""
    askpass backports bit64 boot brio cachem class cluster codetools colorspace desc digest foreign fs ggplot2 here jsonlite
    lattice lazyeval lme4 magrittr mass matrix mgcv nlme nnet openssl png purrr rappdirs rcpp rcppeigen rcpptoml
    rprojroot sys tidyr tidyselect tidyverse utf8 uuid
""")

# R packages too old in Debian 12 for what the recipes ask: compiled from the sources of Debian 13.
COMPILED = words("rlang cli dbi curl vctrs pillar tibble dplyr reticulate httr2 nanoarrow")


def conda_name(deb: str) -> str | None:
    """The conda package that a Debian package is in; None for what the channel leaves out."""
    if deb in DROPPED or (deb.endswith("-dev") and deb not in _BY_DEB):
        return None
    if deb == "r-base-core":
        return "r-base"
    if deb.startswith("r-cran-"):
        return "r-" + deb.removeprefix("r-cran-")
    return _BY_DEB.get(deb, deb)


_BY_DEB = {deb: name for name, debs in GROUPS.items() for deb in debs}
