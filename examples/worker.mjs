// A worker of one's own: `remuda map -- node examples/worker.mjs < FILE` reverses each line.

import { serve } from "../sdk/node/remuda.mjs";

serve((line) => [...line].reverse().join(""));
