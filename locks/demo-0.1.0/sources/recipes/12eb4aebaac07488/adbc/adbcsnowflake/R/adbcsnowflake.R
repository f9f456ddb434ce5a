# The driver for adbcdrivermanager::adbc_database_init(). Options are those of the
# driver itself, such as `adbc.snowflake.sql.account`.
adbcsnowflake <- function() {
  # named, because a driver manager derives another name from a versioned file name
  adbc_driver(driver_path(), entrypoint = "AdbcDriverInit", subclass = "adbcsnowflake_driver_snowflake")
}

# R is <prefix>/lib/R in a conda environment, and the driver lies in <prefix>/lib.
# The name without a version comes first; the versioned ones are what some builds ship alone.
driver_path <- function(folder = dirname(normalizePath(R.home()))) {
  name <- "libadbc_driver_snowflake.so"
  plain <- file.path(folder, name)
  if (file.exists(plain)) {
    return(plain)
  }
  versioned <- list.files(folder, pattern = "^libadbc_driver_snowflake[.]so[.][0-9.]+$", full.names = TRUE)
  if (length(versioned) > 0) {
    # the shortest name is the ABI's, the longer ones are what it points at
    return(versioned[order(nchar(versioned), versioned)][[1]])
  }
  stop(
    "the Snowflake driver is missing: there is no ", name, " in ", folder, ". ",
    "It is in the conda package libadbc-driver-snowflake; ",
    "build the image with the `adbc` recipe, or add that package to its conda environment.",
    call. = FALSE
  )
}
