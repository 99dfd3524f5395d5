// The smallest worker: `remuda map --node examples/upper.mjs:upper < FILE`.

export function upper(s) {
  return s.toUpperCase();
}
