/** `buildos chain`: reads chains of hops, says what they will do, and tries them. */
import { Command } from 'commander';
import { formatChain, formatChainText, parseChain } from '../connections/chain.ts';
import { HAS_SERVICES, IDENTITY, type Identity, lookUp } from '../connections/attributes.ts';
import type { Chain, Connection, Hop } from '../connections/connection.ts';
import { HOPS, checkChain } from '../connections/hops.ts';
import { openChain } from '../connections/open.ts';
import { agentBundle } from './agent-bundle.ts';

/** How often `test` runs `true` at each hop; the median is told. */
const TRIES = 5;

/** What `test` found behind one hop. */
interface HopReport {
  readonly hop: Hop;
  readonly kind: Connection['kind'];
  readonly openMs: number;
  /** Median of running `true`. */
  readonly runMs: number;
  readonly identity: Identity;
  readonly hasServices: boolean;
}

/** The command with its sub-commands. */
export function chainCommand(): Command {
  return new Command('chain')
    .description('read a chain of hops, say what it does, try it')
    .addCommand(parseCommand())
    .addCommand(explainCommand())
    .addCommand(testCommand());
}

const CHAIN_HELP = `'((:ssh :host "b1") :sudo)', '[["ssh",{"host":"b1"}],["sudo"]]', or one bare name`;

function parseCommand(): Command {
  return new Command('parse')
    .description('print the normal form of a chain, as JSON and as text')
    .argument('<chain>', CHAIN_HELP)
    .option('--json', 'print JSON only')
    .action((source: string, options: { json?: boolean }) => {
      const chain = parseChain(source);
      checkChain(chain);
      print(options.json === true ? `${formatChain(chain)}\n` : `${formatChain(chain)}\n${formatChainText(chain)}\n`);
    });
}

function explainCommand(): Command {
  return new Command('explain')
    .description('say what will be run for each hop of a chain; without one, list all hops. Contacts nothing')
    .argument('[chain]', CHAIN_HELP)
    .option('--json', 'print JSON')
    .action((source: string | undefined, options: { json?: boolean }) => {
      if (source === undefined) listHops(options.json === true);
      else explain(parseChain(source), options.json === true);
    });
}

function testCommand(): Command {
  return new Command('test')
    .description('open a chain hop by hop; say who and where we are at each, and how long it takes')
    .argument('<chain>', CHAIN_HELP)
    .option('--json', 'print JSON')
    .action(async (source: string, options: { json?: boolean }) => {
      const reports = await tryChain(parseChain(source));
      if (options.json === true) print(`${JSON.stringify(reports)}\n`);
      else for (const report of reports) print(describe(report));
    });
}

function explain(chain: Chain, json: boolean): void {
  const rows = checkChain(chain).map(({ hop, row, args }) => ({
    hop,
    gives: row.gives,
    needsRoot: row.needsRoot === true,
    runs: row.explain(args),
  }));
  if (json) {
    print(`${JSON.stringify(rows)}\n`);
    return;
  }
  for (const { hop, gives, needsRoot, runs } of rows) {
    print(`${formatChainText([hop])}  ${gives}${needsRoot ? ', needs root' : ''}\n  ${runs}\n`);
  }
}

function listHops(json: boolean): void {
  const rows = Object.entries(HOPS).map(([name, { about, args, standsOn, gives, needsRoot }]) => ({
    name,
    about,
    standsOn,
    gives,
    needsRoot: needsRoot === true,
    args,
  }));
  if (json) {
    print(`${JSON.stringify(rows)}\n`);
    return;
  }
  for (const { name, about, standsOn, gives, needsRoot, args } of rows) {
    print(`${name}  ${about} (on ${standsOn}${needsRoot ? ', needs root' : ''}; gives ${gives})\n`);
    for (const [key, argument] of Object.entries(args)) {
      print(`  ${key} ${argument.type}${argument.required === true ? ', required' : ''}: ${argument.about}\n`);
    }
  }
}

async function tryChain(chain: Chain): Promise<readonly HopReport[]> {
  const reports: HopReport[] = [];
  let started = performance.now();
  await using _ = await openChain(chain, {
    agent: agentBundle(),
    onHop: async (connection) => {
      const openMs = performance.now() - started;
      reports.push({
        hop: connection.chain.at(-1) ?? ['local'],
        kind: connection.kind,
        openMs: round(openMs),
        runMs: round(await measureRun(connection)),
        identity: await lookUp(connection, IDENTITY),
        hasServices: await lookUp(connection, HAS_SERVICES),
      });
      started = performance.now();
    },
  });
  return reports;
}

async function measureRun(connection: Connection): Promise<number> {
  const times: number[] = [];
  for (let at = 0; at < TRIES; at++) {
    const started = performance.now();
    await connection.run(['true'], { timeoutMs: 60_000 });
    times.push(performance.now() - started);
  }
  return times.sort((a, b) => a - b)[Math.floor(TRIES / 2)] ?? 0;
}

function describe({ hop, kind, openMs, runMs, identity, hasServices }: HopReport): string {
  const { user, uid, hostName, machine } = identity;
  return (
    `${formatChainText([hop])}\n` +
    `  ${kind}, ${user} (uid ${uid}) on ${hostName}, ${machine}, ${hasServices ? 'services can run' : 'no services'}\n` +
    `  opened in ${openMs} ms, a command takes ${runMs} ms\n`
  );
}

const round = (value: number): number => Math.round(value * 10) / 10;

const print = (text: string): void => void process.stdout.write(text);
