"""Which conda-forge package holds what a compiler looks for. Facts, as data; what is not here is not guessed at.

Headers are named by their path or by the folder that they lie in (`openssl/`), libraries as the linker's `-l` has them,
modules as pkg-config does, tools by the name of their program. Where a package was split, the newer name comes first.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["HEADERS", "LIBRARIES", "MODULES", "TOOLS"]

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
    "cmake": ("", "", "", "cmake"),
    "make": ("", "", "", "make gmake"),
    "ninja": ("", "", "", "ninja"),
    "meson": ("", "", "", "meson"),
    "pkg-config": ("", "", "", "pkg-config"),
    "autoconf": ("", "", "", "autoconf autoreconf"),
    "automake": ("", "", "", "automake aclocal"),
    "libtool": ("", "", "", "libtool libtoolize"),
    "bison": ("", "", "", "bison"),
    "flex": ("", "", "", "flex"),
    "m4": ("", "", "", "m4"),
    "swig": ("", "", "", "swig"),
    "git": ("", "", "", "git"),
    "perl": ("", "", "", "perl"),
    "patch": ("", "", "", "patch"),
    "nasm": ("", "", "", "nasm"),
    "pandoc": ("", "", "", "pandoc"),
    "unzip": ("", "", "", "unzip"),
    "go": ("", "", "", "go"),
    "nodejs": ("", "", "", "node npm"),
}


def _by(column: int) -> dict[str, str]:
    return {name: package for package, held in _HELD.items() for name in held[column].split()}


HEADERS: Mapping[str, str] = _by(0)
LIBRARIES: Mapping[str, str] = _by(1)
MODULES: Mapping[str, str] = _by(2)
TOOLS: Mapping[str, str] = _by(3)
