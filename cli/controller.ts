/** `buildos controller`: runs a controller until it is told to stop. */
import { createPublicKey } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { z } from 'zod';
import { ControllerError } from '../controller/error.ts';
import { openController, TASK_TIMEOUT_SECONDS } from '../controller/server.ts';
import { keyFingerprint } from '../manifests/challenge.ts';

const optionsSchema = z.object({
  folder: z.string(),
  address: z.string(),
  port: z.int(),
  trust: z.array(z.string()),
  publicUrl: z.exactOptional(z.string()),
  taskTimeout: z.int(),
  attempts: z.int(),
  off: z.boolean(),
  json: z.boolean(),
});

/** The command, for the table in `main.ts`. */
export function controllerCommand(): Command {
  return new Command('controller')
    .description('Run a controller: it takes tasks, hands them to agents and keeps the results.')
    .requiredOption('--folder <dir>', 'where tasks, results and uploads are kept; made when absent')
    .option('--address <address>', 'address to listen on', '127.0.0.1')
    .option('--port <n>', 'TCP port to listen on; 0 takes any free one', wholeNumber(0, 65_535), 8080)
    .option('--trust <keyfile>', 'public key (PEM) of an agent that may take tasks; may be repeated', collect, [])
    .option('--public-url <url>', 'how agents reach this controller, when it is not the way they ask', httpUrl)
    .option(
      '--task-timeout <seconds>',
      'a task without a result is handed out again after',
      wholeNumber(1),
      TASK_TIMEOUT_SECONDS,
    )
    .option('--attempts <n>', 'how often one task is handed out', wholeNumber(1, 1000), 5)
    .option('--off', 'hand out nothing: agents are answered 501', false)
    .option('--json', 'print what was started as JSON', false)
    .addHelpText('after', HELP)
    .action(async (raw: unknown) => {
      await runController(optionsSchema.parse(raw));
    });
}

const HELP = `
Without --trust any agent that can reach the address gets tasks. There is no TLS and no login for people:
keep it on a private network, or behind a reverse proxy.

Ends with status 0 on SIGTERM and SIGINT. What was accepted survives a crash and kill -9.

Example:
  buildos controller --folder ./controller --port 8080
  buildos submit --controller http://127.0.0.1:8080 --task hello.task`;

async function runController(options: z.infer<typeof optionsSchema>): Promise<void> {
  const trustedKeys = await Promise.all(options.trust.map(readPublicKey));
  await using controller = await openController({
    folder: options.folder,
    address: options.address,
    port: options.port,
    trustedKeys,
    taskTimeoutSeconds: options.taskTimeout,
    maxAttempts: options.attempts,
    handsOut: !options.off,
    ...(options.publicUrl === undefined ? {} : { publicUrl: options.publicUrl }),
    onError: (error) => {
      process.stderr.write(`controller: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    },
  });
  const stopped = untilSignal();
  if (options.json) {
    const started = { url: controller.url, folder: resolve(options.folder), trusted: trustedKeys.map(keyFingerprint) };
    process.stdout.write(`${JSON.stringify(started)}\n`);
  } else {
    process.stdout.write(`controller at ${controller.url}, kept in ${resolve(options.folder)}\n`);
  }
  await stopped;
}

/** Settles at the first SIGTERM or SIGINT; a second one ends the process the usual way. */
async function untilSignal(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const done = (): void => {
    process.off('SIGTERM', done).off('SIGINT', done);
    resolve(undefined);
  };
  process.on('SIGTERM', done).on('SIGINT', done);
  await promise;
}

async function readPublicKey(file: string): Promise<KeyObject> {
  let key: KeyObject;
  try {
    key = createPublicKey(await readFile(file));
  } catch (cause) {
    throw new ControllerError(
      `Cannot read the public key "${file}": ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        cause,
        hint: 'A PEM file is expected: openssl pkey -in agent.key -pubout -out agent.pub',
      },
    );
  }
  if (key.asymmetricKeyType !== 'ed25519' && key.asymmetricKeyType !== 'rsa') {
    throw new ControllerError(`Cannot use the key "${file}": its type is ${String(key.asymmetricKeyType)}`, {
      hint: 'Agents sign with Ed25519 or RSA: openssl genpkey -algorithm ed25519 -out agent.key',
    });
  }
  return key;
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

function httpUrl(value: string): string {
  const protocol = URL.parse(value)?.protocol;
  if (protocol !== 'http:' && protocol !== 'https:')
    throw new InvalidArgumentError('An http or https URL is expected.');
  return value;
}

/** For an option that holds a whole number in a range. */
function wholeNumber(minimum: number, maximum: number = Number.MAX_SAFE_INTEGER): (value: string) => number {
  return (value) => {
    const parsed = Number(value);
    if (!/^\d+$/.test(value) || parsed < minimum || parsed > maximum) {
      const range = maximum === Number.MAX_SAFE_INTEGER ? `from ${minimum} on` : `from ${minimum} to ${maximum}`;
      throw new InvalidArgumentError(`A whole number ${range} is expected.`);
    }
    return parsed;
  };
}
