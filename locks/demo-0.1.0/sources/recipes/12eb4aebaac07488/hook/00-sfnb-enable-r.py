"""Start R and register %%R when a notebook kernel starts or restarts.

IPython runs this file in the user's namespace, so it leaves no name behind. All that it does is in
`r_helpers.start_kernel()`, in the folder that SFNB_HELPERS_PATH names. Whatever goes wrong there becomes one line of
text: a kernel without R is better than no kernel.
"""


def _sfnb_start_r() -> None:
    import os
    import sys

    if os.environ.get("SFNB_CUSTOM_RUNTIME", "").strip().lower() not in {"1", "true", "yes"}:
        return
    try:
        folder = os.environ.get("SFNB_HELPERS_PATH") or "/opt/sfnb/helpers"
        if folder not in sys.path:
            sys.path.insert(0, folder)  # before the working folder: an older copy in a project must not win
        import r_helpers

        r_helpers.start_kernel()
    except BaseException as error:  # an interrupt or a SystemExit asks R to stop, not the kernel
        line = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stdout.write(f"[sfnb CRE] %%R not available: the start-up hook failed ({line})\n")


_sfnb_start_r()
del _sfnb_start_r
