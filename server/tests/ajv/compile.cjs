// Compiles the schemas on standard input, an object by name, as strict clients do: Ajv, strict mode, JSON Schema 2020-12.
// Prints one line for each that is refused.
const Ajv = require('ajv/dist/2020');

const schemas = JSON.parse(require('fs').readFileSync(0, 'utf8'));
for (const [name, schema] of Object.entries(schemas)) {
  try {
    new Ajv({ strict: true, logger: false }).compile(schema);
  } catch (error) {
    console.log(`${name}: ${error.message}`);
  }
}
