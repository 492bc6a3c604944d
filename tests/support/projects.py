"""One small project in each of five languages: a sum that is wrong, a test that finds it, and a server that says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolchains import GO, NODE, PYTHON, RUST, C, Toolchain

#: Where every project's server listens.
PORT = 8123
_RESPONSE = r"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Project:
    """A project, and what its programs answer.

    Arguments:
        finds: a program's name and its path in the image.
        version: a command, and a pattern of what it prints.
        files: content by path; `source` has the mistake `a - b` in it, once.
        broken: a mistake in place of `a - b` that `build` finds, the pattern of what it then prints, and its exit code.
        failing, passing: patterns of what `test` prints.
        failed: exit code of `test` when a test fails.
        run: prints the sum.
        serve: the server alone. `start` starts the same as a developer does, through the language's own tool.
        fetch: asks for what only the network has, and its exit code.
        ignored: what git ignores of what the tools make.
        install: a command that writes to a folder of the image, the variable that names it, and the program that is
            there when the command was given again with another one. None for tools that have no such folder.
    """

    toolchain: Toolchain
    finds: tuple[str, str]
    version: tuple[str, str]
    files: Mapping[str, str]
    source: str
    build: str
    broken: tuple[str, str, int]
    test: str
    failing: str
    passing: str
    failed: int
    run: str
    serve: str
    start: str
    fetch: tuple[str, int]
    ignored: str
    install: tuple[str, str, str] | None = None


_C = Project(
    C,
    ("make", "/usr/bin/make"),
    ("make --version | head -1", r"GNU Make 4\.3\n"),
    {
        "add.c": "int add(int a, int b) {\n  return a - b;\n}\n",
        "test.c": "#include <stdio.h>\nint add(int, int);\nint main(void) {\n"
        '  if (add(6, 1) != 7) { printf("FAIL: %d\\n", add(6, 1)); return 1; }\n  puts("PASS");\n  return 0;\n}\n',
        "main.c": rf"""#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>
int add(int, int);
int main(int argc, char **argv) {{
  (void)argv;
  if (argc == 1) {{ printf("%d\n", add(6, 1)); return 0; }}
  struct sockaddr_in at = {{.sin_family = AF_INET, .sin_port = htons({PORT}), .sin_addr.s_addr = htonl(0x7f000001)}};
  int one = 1, server = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(server, (struct sockaddr *)&at, sizeof at) || listen(server, 8)) {{ perror("bind"); return 1; }}
  puts("listening");
  fflush(stdout);
  for (;;) {{
    char asked[4096];
    int client = accept(server, NULL, NULL);
    if (read(client, asked, sizeof asked) > 0) dprintf(client, "{_RESPONSE}%d\n", add(6, 1));
    close(client);
  }}
}}
""",
        "Makefile": "CFLAGS = -Wall -Werror\n\napp: main.o add.o\n\t$(CC) -o $@ $^\n\ncheck: test.o add.o\n"
        "\t$(CC) -o $@ $^\n\n.PHONY: test serve\ntest: check\n\t./check\nserve: app\n\t./app serve\n",
    },
    "add.c",
    "make -s",
    ("a + c", r"(?s)add\.c: In function .add.:\nadd\.c:2:14: error: .c. undeclared .*make: \*\*\* .* Error 1\n", 2),
    "make -s test",
    r"FAIL: 5\nmake: \*\*\* \[Makefile:11: test\] Error 1\n",
    r"PASS\n",
    2,
    "./app",
    "./app serve",
    "make -s serve",
    ("curl -sS http://example.com/add.h", 6),
    "*.o\napp\ncheck\n",
)
_PYTHON = Project(
    PYTHON,
    ("python", "/opt/venv/bin/python"),
    ("python --version; pip --version | cut -d ' ' -f 4", r"Python 3\.11\.\d+\n/opt/venv/lib/python3\.11/.*\n"),
    {
        "calc/__init__.py": "def add(a: int, b: int) -> int:\n    return a - b\n",
        "calc/__main__.py": f"""import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from calc import add


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"%d\\n" % add(6, 1))


if len(sys.argv) == 1:
    print(add(6, 1))
else:
    server = HTTPServer(("127.0.0.1", {PORT}), Handler)
    print("listening")
    server.serve_forever()
""",
        "tests/__init__.py": "",
        "tests/test_calc.py": "import unittest\n\nfrom calc import add\n\n\nclass TestAdd(unittest.TestCase):\n"
        "    def test_adds(self) -> None:\n        self.assertEqual(add(6, 1), 7)\n",
    },
    "calc/__init__.py",
    # What Python caches of a file holds until its size or the second of its time changes: here, neither does.
    "python -m compileall -q --invalidation-mode checked-hash calc",
    (
        "a + )",
        r"\*\*\* Error compiling 'calc/__init__\.py'\.\.\.\n"
        r'  File "calc/__init__\.py", line 2\n    return a \+ \)\n +\^\nSyntaxError: unmatched .*\n\n',
        1,
    ),
    "python -m unittest",
    r"(?s)F\n=+\nFAIL: test_adds .*AssertionError: 5 != 7\n\n-+\nRan 1 test in .*\n\nFAILED \(failures=1\)\n",
    r"\.\n-+\nRan 1 test in .*\n\nOK\n",
    1,
    "python -m calc",
    "python -m calc serve",
    "python -m calc serve",
    ("pip install --retries 0 nosuch", 1),
    "__pycache__/\n",
)
_GO = Project(
    GO,
    ("go", "/usr/local/go/bin/go"),
    ("go version; go env GOPATH", r"go version go1\.19\.\d+ linux/\w+\n/go\n"),
    {
        "go.mod": "module example.com/calc\n\ngo 1.19\n",
        "sum/sum.go": "package sum\n\nfunc Add(a, b int) int {\n\treturn a - b\n}\n",
        "sum/sum_test.go": 'package sum\n\nimport "testing"\n\nfunc TestAdd(t *testing.T) {\n'
        '\tif got := Add(6, 1); got != 7 {\n\t\tt.Errorf("got %d", got)\n\t}\n}\n',
        "main.go": f"""package main

import (
	"fmt"
	"net"
	"net/http"
	"os"

	"example.com/calc/sum"
)

func main() {{
	if len(os.Args) == 1 {{
		fmt.Println(sum.Add(6, 1))
		return
	}}
	server, err := net.Listen("tcp", "127.0.0.1:{PORT}")
	if err != nil {{
		panic(err)
	}}
	fmt.Println("listening")
	panic(http.Serve(server, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {{
		fmt.Fprintln(w, sum.Add(6, 1))
	}})))
}}
""",
    },
    "sum/sum.go",
    "go build",
    ("a + c", r"# example\.com/calc/sum\nsum/sum\.go:4:13: undefined: c\n", 2),
    "go test ./sum",
    r"--- FAIL: TestAdd \(.*\)\n    sum_test\.go:7: got 5\nFAIL\nFAIL\texample\.com/calc/sum\t.*\nFAIL\n",
    r"ok  \texample\.com/calc/sum\t.*\n",
    1,
    "./calc",
    "./calc serve",
    "go run . serve",
    ("GOFLAGS=-mod=mod go get example.com/nosuch", 1),
    "/calc\n",
    ("go install .", "GOPATH", "$GOPATH/bin/calc"),
)
_RUST = Project(
    RUST,
    ("cargo", "/usr/local/cargo/bin/cargo"),
    ("cargo --version; rustc --version", r"cargo 1\.\d+\.\d+.*\nrustc 1\.63\.0\n"),
    {
        "Cargo.toml": '[package]\nname = "calc"\nversion = "0.1.0"\nedition = "2021"\n',
        "Cargo.lock": "# This file is automatically @generated by Cargo.\n# It is not intended for manual editing.\n"
        'version = 3\n\n[[package]]\nname = "calc"\nversion = "0.1.0"\n',
        "src/lib.rs": "pub fn add(a: i32, b: i32) -> i32 {\n    a - b\n}\n\n#[cfg(test)]\nmod tests {\n"
        "    #[test]\n    fn adds() {\n        assert_eq!(super::add(6, 1), 7);\n    }\n}\n",
        "src/main.rs": f"""use std::io::{{Read, Write}};

fn main() {{
    if std::env::args().count() == 1 {{
        println!("{{}}", calc::add(6, 1));
        return;
    }}
    let server = std::net::TcpListener::bind("127.0.0.1:{PORT}").unwrap();
    println!("listening");
    for client in server.incoming() {{
        let mut client = client.unwrap();
        let mut asked = [0; 4096];
        if client.read(&mut asked).unwrap_or(0) > 0 {{
            let _ = write!(client, "{_RESPONSE}{{}}\\n", calc::add(6, 1));
        }}
    }}
}}
""",
    },
    "src/lib.rs",
    "cargo build --offline -q",
    ("a + c", r"(?s)error\[E0425\]: cannot find value `c` in this scope\n.*error: could not compile `calc`.*\n", 101),
    "cargo test --offline -q",
    r"(?s)\nrunning 1 test\n.*panicked at .*left: `5`,\n right: `7`.*test result: FAILED\. 0 passed; 1 failed; .*\n",
    r"(?s)\nrunning 1 test\n.*test result: ok\. 1 passed; 0 failed; .*\n",
    101,
    "target/debug/calc",
    "target/debug/calc serve",
    "cargo run --offline -q -- serve",
    ("cargo add nosuch", 101),
    "target/\n",
    ("cargo install -q --path . --offline", "CARGO_HOME", "$CARGO_HOME/bin/calc"),
)
_NODE = Project(
    NODE,
    ("node", "/usr/local/bin/node"),
    ("node --version; npm --version", r"v18\.\d+\.\d+\n9\.2\.0\n"),
    {
        "package.json": '{\n  "name": "calc",\n  "version": "1.0.0",\n  "scripts": {\n'
        '    "build": "node --check add.js",\n'
        '    "test": "node --test",\n    "start": "node main.js serve"\n  }\n}\n',
        "add.js": "module.exports = (a, b) => {\n  return a - b;\n};\n",
        "add.test.js": "const test = require('node:test');\nconst assert = require('node:assert');\n"
        "const add = require('./add.js');\n\ntest('adds', () => assert.strictEqual(add(6, 1), 7));\n",
        "main.js": f"""const add = require('./add.js');
if (process.argv.length === 2) {{
  console.log(add(6, 1));
}} else {{
  require('node:http')
    .createServer((request, response) => response.end(`${{add(6, 1)}}\\n`))
    .listen({PORT}, '127.0.0.1', () => console.log('listening'));
}}
""",
    },
    "add.js",
    "npm run -s build",
    ("a + )", r"(?s).*/add\.js:2\n  return a \+ \);\n +\^\n\nSyntaxError: Unexpected token .*\n", 1),
    "npm test",
    r"(?s)\n> calc@1\.0\.0 test\n> node --test\n.*5 !== 7.*# fail 1\n.*",
    r"(?s)\n> calc@1\.0\.0 test\n> node --test\n.*# pass 1\n# fail 0\n.*",
    1,
    "node main.js",
    "node main.js serve",
    "npm -s start",
    ("npm install --fetch-retries=0 nosuch", 1),
    "node_modules/\n",
)
PROJECTS = (_C, _PYTHON, _GO, _RUST, _NODE)
