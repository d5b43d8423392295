"""The program: `sanactl`, and `python -m sanactl` so that `accelerate launch -m sanactl ...` and `torchrun` work."""


def run() -> None:
    """Runs the command line of this process and ends it with the exit code."""
    # Before typer is imported: an interrupt during an import would come out as a traceback.
    from sanactl.cli.frame.process import end, ignore_at_exit, leave_at_once, prepare

    ignore_at_exit()
    leave_at_once("sanactl: interrupted\n")
    prepare()
    from sanactl.cli.app import main

    try:
        code = main()
    except KeyboardInterrupt:  # in the last instructions of `main`
        code = 130
    leave_at_once()
    end(code)


if __name__ == "__main__":
    run()
