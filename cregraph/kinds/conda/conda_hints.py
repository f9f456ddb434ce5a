"""What users are told about conda packages: those with what a compiler looks for, and those with link scripts.

Headers have their path or folder (`openssl/`), libraries the name after the linker's `-l`, modules the name that pkg-config has,
tools the name of their program. Where a package was split, the newer name comes first.
"""

from __future__ import annotations

import mmap
import re
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

from cregraph.errors import CregraphError
from cregraph.kinds.conda import conda_archive
from cregraph.lock.pins import Pin, Target
from cregraph.store import Store
from cregraph.text import few, printable

__all__ = ["HEADERS", "LIBRARIES", "MODULES", "TOOLS", "link_scripts", "listed", "notes"]

_XML = "libxml2-devel (libxml2 where the channel has no such)"
_LZMA = "liblzma-devel (xz where the channel has no such)"
_GDAL = "libgdal-core (libgdal before 3.9)"
_BOOST = "libboost-headers"
_MARIADB = "mariadb-connector-c"

#: Package to headers, libraries, pkg-config modules and programs, each a text of names.
_HELD: Mapping[str, tuple[str, str, str, str]] = {
    _XML: ("libxml/", "xml2", "libxml-2.0", "xml2-config"),
    "libcurl": ("curl/", "curl", "libcurl", "curl-config"),
    "openssl": ("openssl/", "ssl crypto", "openssl libssl libcrypto", ""),
    "zlib": ("zlib.h zconf.h", "z", "zlib", ""),
    "bzip2": ("bzlib.h", "bz2", "bzip2", ""),
    _LZMA: ("lzma.h lzma/", "lzma", "liblzma", ""),
    "zstd": ("zstd.h", "zstd", "libzstd", ""),
    "lz4-c": ("lz4.h", "lz4", "liblz4", ""),
    "libpng": ("png.h", "png png16", "libpng libpng16", "libpng-config"),
    "libjpeg-turbo": ("jpeglib.h turbojpeg.h", "jpeg turbojpeg", "libjpeg libturbojpeg", ""),
    "libtiff": ("tiff.h tiffio.h", "tiff", "libtiff-4", ""),
    "libwebp-base": ("webp/", "webp", "libwebp", ""),
    "freetype": ("ft2build.h freetype/", "freetype", "freetype2", "freetype-config"),
    "fontconfig": ("fontconfig/", "fontconfig", "fontconfig", ""),
    "harfbuzz": ("hb.h hb-ft.h", "harfbuzz", "harfbuzz", ""),
    "fribidi": ("fribidi.h fribidi/", "fribidi", "fribidi", ""),
    "cairo": ("cairo.h cairo/", "cairo", "cairo", ""),
    "pango": ("pango/", "pango-1.0 pangocairo-1.0", "pango pangocairo", ""),
    "librsvg": ("librsvg/", "rsvg-2", "librsvg-2.0", ""),
    "poppler": ("poppler/ poppler-document.h", "poppler poppler-cpp", "poppler poppler-cpp", ""),
    "imagemagick": ("Magick++.h", "Magick++-7.Q16HDRI", "Magick++ ImageMagick++", "Magick++-config"),
    "tesseract": ("tesseract/", "tesseract", "tesseract", ""),
    "leptonica": ("leptonica/ allheaders.h", "leptonica lept", "lept", ""),
    _GDAL: ("gdal.h gdal_priv.h ogr_api.h", "gdal", "gdal", "gdal-config"),
    "geos": ("geos_c.h geos/", "geos_c geos", "geos", "geos-config"),
    "proj": ("proj.h proj_api.h", "proj", "proj", ""),
    "udunits2": ("udunits2.h", "udunits2", "", ""),
    "libnetcdf": ("netcdf.h", "netcdf", "netcdf", "nc-config"),
    "hdf5": ("hdf5.h H5Cpp.h", "hdf5 hdf5_hl", "hdf5", "h5cc"),
    "sqlite": ("sqlite3.h", "sqlite3", "sqlite3", "sqlite3"),
    "libpq": ("libpq-fe.h", "pq", "libpq", "pg_config"),
    _MARIADB: ("mysql.h mariadb/", "mysqlclient mariadb", "libmariadb mysqlclient", "mysql_config mariadb_config"),
    "unixodbc": ("sql.h sqlext.h odbcinst.h", "odbc odbcinst", "odbc", "odbc_config"),
    "gsl": ("gsl/", "gsl gslcblas", "gsl", "gsl-config"),
    "gmp": ("gmp.h gmpxx.h", "gmp gmpxx", "gmp", ""),
    "mpfr": ("mpfr.h", "mpfr", "mpfr", ""),
    "fftw": ("fftw3.h", "fftw3", "fftw3", ""),
    "nlopt": ("nlopt.h nlopt.hpp", "nlopt", "nlopt", ""),
    "glpk": ("glpk.h", "glpk", "", ""),
    "eigen": ("Eigen/ eigen3/", "", "eigen3", ""),
    _BOOST: ("boost/", "", "", ""),
    "tbb-devel": ("tbb/ oneapi/", "tbb", "tbb", ""),
    "liblapack": ("lapacke.h", "lapack lapacke", "lapack", ""),
    "libblas": ("cblas.h", "blas cblas", "blas cblas", ""),
    "openblas": ("", "openblas", "openblas", ""),
    "icu": ("unicode/", "icuuc icui18n icudata", "icu-uc icu-i18n", "icu-config"),
    "libgit2": ("git2.h git2/", "git2", "libgit2", ""),
    "libssh2": ("libssh2.h", "ssh2", "libssh2", ""),
    "libsodium": ("sodium.h", "sodium", "libsodium", ""),
    "zeromq": ("zmq.h zmq.hpp", "zmq", "libzmq", ""),
    "libarchive": ("archive.h archive_entry.h", "archive", "libarchive", ""),
    "libprotobuf": ("google/", "protobuf protobuf-lite", "protobuf", "protoc"),
    "libarrow": ("arrow/", "arrow", "arrow", ""),
    "libsecret": ("libsecret/", "secret-1", "libsecret-1", ""),
    "gpgme": ("gpgme.h", "gpgme", "gpgme", "gpgme-config"),
    "yaml": ("yaml.h", "yaml", "yaml-0.1", ""),
    "expat": ("expat.h", "expat", "expat", ""),
    "pcre2": ("pcre2.h", "pcre2-8", "libpcre2-8", "pcre2-config"),
    "readline": ("readline/", "readline", "readline", ""),
    "ncurses": ("ncurses.h curses.h", "ncurses tinfo", "ncurses", ""),
    "jags": ("JAGS/", "jags", "jags", "jags"),
    "xorg-libx11": ("X11/", "X11", "x11", ""),
    "libgl-devel": ("GL/", "GL", "gl", ""),
    "libffi": ("ffi.h", "ffi", "libffi", ""),
    "openjdk": ("jni.h", "jvm", "", "java javac jar"),
    "c-compiler": ("", "", "", "gcc cc x86_64-conda-linux-gnu-cc x86_64-conda-linux-gnu-gcc"),
    "cxx-compiler": ("", "", "", "g++ c++ x86_64-conda-linux-gnu-c++ x86_64-conda-linux-gnu-g++"),
    "fortran-compiler": ("", "gfortran quadmath", "", "gfortran f77 x86_64-conda-linux-gnu-gfortran"),
    "rust": ("", "", "", "cargo rustc"),
    "make": ("", "", "", "make gmake"),
    "autoconf": ("", "", "", "autoconf autoreconf"),
    "automake": ("", "", "", "automake aclocal"),
    "libtool": ("", "", "", "libtool libtoolize"),
    "nodejs": ("", "", "", "node npm"),
}

#: Programs that have the name of their package.
_SAME = "bison cmake flex git go m4 meson nasm ninja pandoc patch perl pkg-config swig unzip"


def _by(column: int) -> dict[str, str]:
    return {name: package for package, held in _HELD.items() for name in held[column].split()}


HEADERS: Mapping[str, str] = _by(0)
LIBRARIES: Mapping[str, str] = _by(1)
MODULES: Mapping[str, str] = _by(2)
TOOLS: Mapping[str, str] = _by(3) | {name: name for name in _SAME.split()}


def listed(store: Store, package: str) -> bool | None:
    """Return whether an index of a conda channel in the store lists `package`; None if the store does not tell.

    Indexes in shards are msgpack: a text is preceded by its length.
    """
    name = package.encode()
    known = False
    for path in sorted((store.root / "repodata").glob("*")) if (store.root / "repodata").is_dir() else ():
        if not path.is_file() or path.stat().st_size == 0 or path.name.endswith(".info.json"):
            continue
        whole = path.suffix == ".json"
        marks = (b'"name":"' + name + b'"', b'"name": "' + name + b'"') if whole else (bytes([0xA0 | len(name)]) + name,)
        if len(name) > 31 and not whole:
            marks = (bytes([0xD9, len(name)]) + name,)
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if any(data.find(mark) >= 0 for mark in marks):
                    return True
                known = known or (whole and data.find(b'"r-') >= 0)
        except (OSError, ValueError):
            continue
    return False if known else None


_LINK_SCRIPT = re.compile(r"bin/\.[^/]+-(?:pre-link|post-link|pre-unlink)\.sh")


def notes(
    targets: Sequence[Target], store: Store, *, before: Sequence[Target] = (), only: Container[str] | None = None
) -> Iterator[str]:
    """Return a note about packages with link scripts, if their bytes are in the store."""
    pins = [pin for target in targets if target.kind == "conda" for pin in target.pins if only is None or pin.name in only]
    found = [f"{pin.name} {pin.version} ({', '.join(scripts)})" for pin in pins if (scripts := _scripts(pin, store))]
    way = "what they would change is not in the image; do it with a `file` step of a recipe, or in a notebook"
    yield from [f"link scripts that are not run: {few(found)}\n  {way}"] if found else []


def _scripts(pin: Pin, store: Store) -> list[str]:
    if not store.has(pin.artifact.sha256):
        return []
    try:
        return [printable(name) for name in link_scripts(store.path_of(pin.artifact.sha256))]
    except CregraphError:
        return []  # the build refuses the package, with the reason


def link_scripts(path: Path) -> list[str]:
    """Return the link scripts of the package at `path`."""
    return [member for member in conda_archive.listed(path, tempfile.TemporaryFile, path.name) if _LINK_SCRIPT.fullmatch(member)]
