/** `buildos submit`: gives a task to a controller, and may wait for its result. */
import { readFile } from 'node:fs/promises';
import { Command, InvalidArgumentError } from 'commander';
import { z } from 'zod';
import { submitTask, waitForTask } from '../controller/client.ts';
import type { TaskView } from '../controller/task-view.ts';
import { decodeText } from '../manifests/manifest.ts';
import { isWorse } from '../manifests/result.ts';
import { parseTask } from '../manifests/task.ts';
import type { Task } from '../manifests/task.ts';

const word = z.exactOptional(z.string());

const optionsSchema = z.object({
  controller: z.string(),
  task: word,
  name: word,
  version: word,
  source: word,
  sha256: word,
  machine: word,
  target: word,
  environment: word,
  targetConfig: word,
  wait: z.boolean(),
  timeout: z.number(),
  json: z.boolean(),
});

type Options = z.infer<typeof optionsSchema>;

/** The options that make a task, as they are typed; those that a task must have come first. */
const NEEDED = ['name', 'version', 'source', 'machine'] as const;
const OTHERS = ['sha256', 'target', 'environment', 'targetConfig'] as const;

/** The command, for the table in `main.ts`. */
export function submitCommand(): Command {
  const command = new Command('submit')
    .description('Give a task to a controller: from a file, or made of the options.')
    .requiredOption('--controller <url>', 'the controller, as it printed it', httpUrl)
    .option('--task <file>', 'a task manifest; "-" reads the standard input')
    .option('--name <name>', 'package to build')
    .option('--version <version>', 'its version')
    .option('--source <url>', 'source archive (a tarball with ./configure)')
    .option('--sha256 <digest>', 'SHA-256 of the source archive', sha256)
    .option('--machine <name>', 'machine to build on, or its first dash components')
    .option('--target <triplet>', `target triplet (default: ${hostTriplet()})`)
    .option('--environment <text>', 'build environment')
    .option('--target-config <words>', 'more words for configure')
    .option('--wait', 'wait for the result', false)
    .option('--timeout <seconds>', 'with --wait: for at most so long', seconds, 3600)
    .option('--json', 'print JSON', false)
    .addHelpText('after', HELP);
  return command.action(async (raw: unknown) => {
    const options = optionsSchema.parse(raw);
    const mistake = findMistake(options);
    if (mistake !== undefined) command.error(`error: ${mistake}`);
    await submit(options);
  });
}

const HELP = `
Prints the task's id. With --wait also what came of each operation; the status is 1 when the result is worse
than "warning", or when there is none in time.

Example:
  buildos submit --controller http://127.0.0.1:8080 --wait --name hello --version 2.10 \\
    --source http://deb.debian.org/debian/pool/main/h/hello/hello_2.10.orig.tar.gz \\
    --sha256 31e066137a962676e89f69d1b65382de95a7ef7d914b8cb956f41ea72e0f516b --machine linux_debian_13`;

async function submit(options: Options): Promise<void> {
  const task = options.task === undefined ? makeTask(options) : await readTaskFile(options.task);
  const ask = { url: options.controller };
  const id = await submitTask(ask, task);
  if (!options.wait) {
    process.stdout.write(options.json ? `${JSON.stringify({ id })}\n` : `${id}\n`);
    return;
  }
  if (!options.json) process.stdout.write(`${id}\n`);
  const ended = await waitForTask(ask, id, {
    timeoutMs: options.timeout * 1000,
    onChange: (view) => {
      const event = view.events.at(-1);
      if (event === undefined || options.json) return;
      process.stderr.write(`${event.at} ${event.name}${event.agent === undefined ? '' : ` (${event.agent})`}\n`);
    },
  });
  process.stdout.write(options.json ? `${JSON.stringify(ended, undefined, 2)}\n` : describe(ended, options.controller));
  if (isWorse(ended.status ?? 'abnormal', 'warning')) process.exitCode = 1;
}

/** What came of a task, for people. */
function describe(task: TaskView, controller: string): string {
  const base = controller.replace(/\/+$/, '');
  const lines = [
    `${task.name} ${task.version}: ${task.status ?? task.state}${task.state === 'given-up' ? `, given up after ${task.attempts} attempts` : ''}`,
    ...task.operations.map(
      ({ operation, status, logBytes }) =>
        `  ${operation.padEnd(10)} ${status.padEnd(8)} ${String(logBytes).padStart(9)} bytes  ${base}/?log=${task.id}&operation=${operation}`,
    ),
    ...task.uploads.map(
      ({ type, sizeBytes }) =>
        `  ${'upload'.padEnd(10)} ${type.padEnd(8)} ${String(sizeBytes).padStart(9)} bytes  ${base}/?upload=${task.id}`,
    ),
  ];
  return `${lines.join('\n')}\n`;
}

/** What is wrong with the options taken together. */
function findMistake(options: Options): string | undefined {
  if (options.task !== undefined) {
    const given = [...NEEDED, ...OTHERS].find((name) => options[name] !== undefined);
    return given === undefined ? undefined : `--task brings the whole task, ${flag(given)} cannot be given with it`;
  }
  const absent = NEEDED.filter((name) => options[name] === undefined).map(flag);
  if (absent.length === 0) return undefined;
  return absent.length === NEEDED.length
    ? 'a task is needed: --task FILE, or --name, --version, --source and --machine'
    : `${absent.join(', ')} ${absent.length === 1 ? 'is' : 'are'} missing`;
}

function flag(name: string): string {
  return `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

function makeTask(options: Options): Task {
  const { name = '', version = '', source = '', machine = '' } = options;
  return {
    name,
    version,
    repositoryUrl: options.sha256 === undefined ? source : `${source}#sha256=${options.sha256}`,
    repositoryType: 'archive',
    machine,
    target: options.target ?? hostTriplet(),
    ...(options.environment === undefined ? {} : { environment: options.environment }),
    ...(options.targetConfig === undefined ? {} : { targetConfig: options.targetConfig }),
  };
}

async function readTaskFile(file: string): Promise<Task> {
  const name = file === '-' ? 'the standard input' : file;
  const bytes = file === '-' ? await readInput() : await readFile(file);
  return parseTask(decodeText(bytes, { name }), { name });
}

async function readInput(): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const input: AsyncIterable<unknown> = process.stdin;
  for await (const chunk of input) {
    if (chunk instanceof Uint8Array) chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** The target of this machine, as GNU names it. */
function hostTriplet(): string {
  return process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
}

function httpUrl(value: string): string {
  const protocol = URL.parse(value)?.protocol;
  if (protocol !== 'http:' && protocol !== 'https:')
    throw new InvalidArgumentError('An http or https URL is expected.');
  return value;
}

function sha256(value: string): string {
  if (!/^[0-9a-f]{64}$/i.test(value)) throw new InvalidArgumentError('64 hexadecimal digits are expected.');
  return value.toLowerCase();
}

function seconds(value: string): number {
  const parsed = Number(value);
  if (!/^\d+(?:\.\d+)?$/.test(value) || parsed <= 0) throw new InvalidArgumentError('Seconds are expected.');
  return parsed;
}
