// `node scenario_in_node.mjs CLIENT URL FILE` prints a line of JSON for each step of the scenario.

import { readFileSync } from "node:fs";

import { results } from "./scenario.mjs";

const [client, url, file] = process.argv.slice(2);
for await (const result of results(await import(client), url, JSON.parse(readFileSync(file, "utf8")))) console.log(JSON.stringify(result));
