// Has each library compute test vectors of its preset: one of the usual form, and those that have
// zeros where libraries differ most. The argument is the folder docs/vectors. Prints the vectors
// that a library computes differently, and how many it has computed, and ends with 1 if it differs.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { libraries } from "./libraries.mjs";

for (const [name, library] of Object.entries(libraries)) {
  const file = JSON.parse(readFileSync(join(process.argv[2], `${name}.json`), "utf8"));
  const vectors = file.vectors.filter((v) => /^(multi-device licence|(A|B|S|salt|M1|M2) begins with zero)$/.test(v.name));
  let right = 0;
  for (const v of vectors) {
    try {
      await play(library, v);
      right++;
    } catch (e) {
      console.log(`${name}: ${v.name}: ${e.message}`);
      process.exitCode = 1;
    }
  }
  console.log(`${name}: ${right} of ${vectors.length} vectors`);
}

async function play(library, { inputs, values }) {
  const unhex = (digits) => Buffer.from(digits, "hex");
  const same = (what, got, want) => {
    if (!got.equals(unhex(want))) throw new Error(`${what} differs`);
  };
  const { identifier, password } = inputs;
  const exchange = await library.start({ identifier, password, group: "2048", a: unhex(inputs.a) });
  same("A", exchange.A, values.A);
  same("M1", await exchange.prove(unhex(inputs.salt), unhex(values.B)), values.M1);
  same("K", exchange.key(), values.K);
  await exchange.confirm(unhex(values.M2));
}
