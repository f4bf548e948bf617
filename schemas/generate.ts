/** Writes schemas/types.ts from the .avsc files: `node schemas/generate.ts`. With --check it only compares, and exits 1 on a difference. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';

type Schema = string | Schema[] | { type: Schema; [key: string]: unknown };
type Field = { name: string; type: Schema; doc?: string };

const folder = new URL('.', import.meta.url);
const records = new Map<string, string>();

const comment = (doc: unknown, indent = '') => (doc ? `${indent}/** ${doc} */\n` : '');

function typeOf(schema: Schema): string {
  if (Array.isArray(schema)) return schema.map(typeOf).join(' | ');
  if (typeof schema === 'string') {
    const named = { string: 'string', boolean: 'boolean', int: 'number', long: 'number', bytes: 'Uint8Array', null: 'null' }[schema];
    return named ?? (schema.split('.').pop() as string);
  }
  if (schema.type === 'array') {
    const items = typeOf(schema['items'] as Schema);
    return items.includes('|') ? `(${items})[]` : `${items}[]`;
  }
  if (schema.type === 'record') return declare(schema);
  if (schema.type === 'long' && schema['total']) return 'bigint';
  return typeOf(schema.type);
}

function declare(schema: Record<string, unknown>): string {
  const name = schema['name'] as string;
  const fields = (schema['fields'] as Field[]).map((field) => `${comment(field.doc, '  ')}  ${field.name}: ${typeOf(field.type)};\n`).join('');
  records.set(name, `${comment(schema['doc'])}export interface ${name} {\n${fields}}\n`);
  return name;
}

for (const file of readdirSync(folder)
  .filter((name) => name.endsWith('.avsc'))
  .sort()) {
  declare(JSON.parse(readFileSync(new URL(file, folder), 'utf8')));
}
const text = `/** Written by schemas/generate.ts from the .avsc files; not to be edited. */\n\n${[...records.values()].join('\n')}`;
const target = new URL('types.ts', folder);
if (process.argv.includes('--check')) {
  if (readFileSync(target, 'utf8') !== text) {
    console.error('schemas/types.ts is not what the .avsc files say: run `make schemas`');
    process.exit(1);
  }
} else writeFileSync(target, text);
