/** `flowledger errors`: what a code of `flowledger doctor` means. */
import type { Command } from 'commander';
import { type Code, type ErrorCode, errorCodes } from './error-codes.ts';

export function registerErrors(program: Command): void {
  program
    .command('errors')
    .argument('[code]', 'such as FL101 (default: a list of all)')
    .description('Explains a code that flowledger doctor names: how it shows, what it means, what to do.')
    .option('--markdown', 'all of them as the page docs/ERRORS.md')
    .addHelpText('after', '\nExamples:\n  $ flowledger errors\n  $ flowledger errors FL203')
    .action((code: string | undefined, options: { markdown?: boolean }) => {
      process.stdout.write(options.markdown ? errorsPage() : code === undefined ? errorsList() : explanation(code));
    });
}

const entries = Object.entries(errorCodes) as [Code, ErrorCode][];

function errorsList(): string {
  return entries.map(([code, { severity, title }]) => `${code}  ${severity.padEnd(7)}  ${title}\n`).join('');
}

/** @throws Error for a code that there is not */
export function explanation(code: string): string {
  const found = entries.find(([name]) => name === code.toUpperCase());
  if (!found) throw new Error(`there is no code ${code}: flowledger errors lists them`);
  const [name, { severity, title, symptom, meaning, remedy }] = found;
  return `${name} (${severity}): ${title}\n\nSymptom     ${symptom}\nMeaning     ${meaning}\nWhat to do  ${remedy}\n`;
}

/** docs/ERRORS.md. */
export function errorsPage(): string {
  const head = `# Codes of flowledger doctor

\`flowledger doctor\` names each finding by a code that stays the same for ever; \`flowledger errors CODE\` prints what stands here.

An **error** means that records can be lost, billed wrong, or not at all, and makes the exit code 1. A **warning** means that nothing is lost yet. A
**notice** is good to know. This page is written by \`make errors\`.
`;
  const parts = entries.map(
    ([code, { severity, title, symptom, meaning, remedy }]) =>
      `\n## ${code}: ${title}\n\n*${severity}*\n\n- **Symptom:** ${symptom}\n- **Meaning:** ${meaning}\n- **What to do:** ${remedy}\n`,
  );
  return head + parts.join('');
}
