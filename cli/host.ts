/** `buildos host`: what a host is made of, what deploying would change, and deploying. */
import { readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import type { Chain, Connection } from '../connections/connection.ts';
import { formatChainText } from '../connections/chain.ts';
import { checkChain } from '../connections/hops.ts';
import { openChain } from '../connections/open.ts';
import type { ImageInputs } from '../image/build-inputs.ts';
import { bundle, type Bundle } from '../image/bundle.ts';
import type { DataStore } from '../properties/data.ts';
import { type DeployReport, deploy } from '../properties/deploy.ts';
import { type HostOptions, checkHost } from '../properties/run.ts';
import {
  type HostDefinition,
  HostDefinitionError,
  definitionDigest,
  hostAttrs,
} from '../properties/host-definition.ts';
import { loadHostDefinition } from '../properties/load-host.ts';
import { formatPlan, planHost } from '../properties/plan.ts';
import { describeApplication } from '../properties/property.ts';
import type { PropertyResult } from '../properties/attempt.ts';
import { agentBundle } from './agent-bundle.ts';
import { DATA_HELP, dataOption, dataStore, jsonOption, onOption } from './host-options.ts';
import { onInterrupt } from './interrupt.ts';

const HOSTS = join(import.meta.dirname, '../image/hosts');

const HOST_HELP = '\nHOST is a name of "buildos host list", or the path of a module: ./my-host.ts';

/** The command with its sub-commands. */
export function hostCommand(): Command {
  return new Command('host')
    .description('show a host definition, plan and deploy it')
    .addCommand(listCommand())
    .addCommand(showCommand())
    .addCommand(attrsCommand())
    .addCommand(planCommand())
    .addCommand(deployCommand());
}

interface HostArguments {
  readonly on: Chain;
  readonly data?: readonly string[];
  readonly memory: boolean;
  readonly json?: true;
}

function listCommand(): Command {
  return new Command('list')
    .description('the hosts that we ship')
    .addOption(jsonOption())
    .action(async ({ json }: { json?: true }) => {
      const hosts: { name: string; summary: string }[] = [];
      for (const name of hostNames()) {
        await withHost(name, async ({ summary }) => void hosts.push({ name, summary }));
      }
      if (json === true) printJson(hosts);
      else print(hosts.map(({ name, summary }) => `${name}  ${summary}`).join('\n'));
    });
}

function showCommand(): Command {
  return new Command('show')
    .description('the properties of a host, in order')
    .argument('<host>')
    .addOption(jsonOption())
    .addHelpText('after', HOST_HELP)
    .action(async (name: string, { json }: { json?: true }) => {
      await withHost(name, async (definition) => {
        if (json === true) printJson({ ...definition, digest: definitionDigest(definition) });
        else {
          const { base, properties, summary } = definition;
          const lines = properties.map((application) => `  ${application.p}: ${describeApplication(application)}`);
          print([`${definition.name}: ${summary}`, `  on ${base.distribution} ${base.suite}`, ...lines].join('\n'));
        }
      });
    });
}

function attrsCommand(): Command {
  return new Command('attrs')
    .description('what the properties of a host add up to: packages, users, units, files, kernel options')
    .argument('<host>')
    .addOption(jsonOption())
    .addHelpText('after', HOST_HELP)
    .action(async (name: string, { json }: { json?: true }) => {
      await withHost(name, async (definition) => {
        const attrs = hostAttrs(definition);
        if (json === true) {
          printJson(attrs);
          return;
        }
        const lines = Object.entries(attrs).flatMap(([key, value]: [string, unknown]) =>
          Array.isArray(value) && value.length > 0
            ? [
                `${key}:`,
                ...value.map((item: unknown) => `  ${typeof item === 'string' ? item : JSON.stringify(item)}`),
              ]
            : [],
        );
        print(lines.join('\n'));
      });
    });
}

function planCommand(): Command {
  return new Command('plan')
    .description('what deploying would change; changes nothing')
    .argument('<host>')
    .addOption(onOption())
    .addOption(dataOption())
    .option('--no-memory', 'as if nothing were known of earlier deploys')
    .addOption(jsonOption())
    .addHelpText('after', `${HOST_HELP}\n${DATA_HELP}\n\nExit status: 0 nothing to do, 2 changes are pending, 1 error.`)
    .action(async (name: string, args: HostArguments) => {
      await withHost(name, async (definition) => {
        const options = optionsOf(args);
        await using connection = await openHost(definition, args.on, options.data);
        const plan = await planHost(definition, connection, options);
        if (args.json === true) printJson(plan);
        else print(formatPlan(plan));
        process.exitCode = plan.outcome === 'ok' ? 0 : 2;
      });
    });
}

function deployCommand(): Command {
  return new Command('deploy')
    .description('make the properties of a host hold')
    .argument('<host>')
    .addOption(onOption())
    .addOption(dataOption())
    .option('--no-memory', 'keep nothing on the host; what leaves the definition later stays there')
    .addOption(jsonOption())
    .addHelpText('after', `${HOST_HELP}\n${DATA_HELP}\n\nExit status: 0 everything holds, 1 something failed.`)
    .action(async (name: string, args: HostArguments) => {
      await withHost(name, async (definition) => {
        const options = optionsOf(args);
        await using connection = await openHost(definition, args.on, options.data);
        using interrupt = onInterrupt();
        const report = await deploy(definition, connection, {
          ...options,
          signal: interrupt.signal,
          onProgress: (progress) => {
            if (progress.kind === 'line') process.stderr.write(`    ${progress.line}\n`);
            if (progress.kind === 'ended' && progress.result.outcome !== 'ok' && progress.depth === 0) {
              process.stderr.write(`${formatResult(progress.result)}\n`);
            }
          },
        });
        if (args.json === true) printJson(reportData(report));
        else print(formatReport(report, args.on));
        process.exitCode = report.outcome === 'ok' || report.outcome === 'changed' ? 0 : 1;
      });
    });
}

/** A report as data: errors by their message. */
export function reportData(report: DeployReport): unknown {
  const result = ({ application, description, outcome, durationMs, error, children }: PropertyResult): unknown => ({
    application,
    description,
    outcome,
    durationMs: Math.round(durationMs),
    ...(error === undefined ? {} : { error: error.message, ...hintOf(error) }),
    ...(children.length === 0 ? {} : { children: children.map(result) }),
  });
  return {
    ...report,
    durationMs: Math.round(report.durationMs),
    left: report.left.map(result),
    results: report.results.map(result),
    atEnd: report.atEnd.map(result),
  };
}

/** A report in a line or two; "no changes" only when nothing failed. */
export function formatReport(report: DeployReport, chain: Chain): string {
  const all = [...report.left, ...report.results, ...report.atEnd];
  const counts = (['changed', 'ok', 'failed', 'aborted', 'skipped'] as const).flatMap((outcome) => {
    const count = all.filter((result) => result.outcome === outcome).length;
    return count === 0 ? [] : [`${count} ${outcome}`];
  });
  const where = chain.length > 1 ? ` on ${formatChainText(chain.slice(1))}` : '';
  const seconds = (report.durationMs / 1000).toFixed(1);
  const end = report.outcome === 'ok' ? 'no changes' : counts.join(', ');
  return [
    ...report.warnings.map((warning) => `warning: ${warning}`),
    `${report.host}${where}: ${end} (${seconds} s)`,
  ].join('\n');
}

/** A result and what failed below it, as lines. */
export function formatResult({ outcome, description, error, children }: PropertyResult, depth = 0): string {
  const indent = '  '.repeat(depth);
  const bad = children.filter((child) => child.outcome === 'failed' || child.outcome === 'aborted');
  const reason = error === undefined || bad.length > 0 ? [] : error.message.split('\n');
  const hint = error === undefined || bad.length > 0 ? undefined : hintOf(error).hint;
  return [
    `${indent}${outcome} ${description}`,
    ...reason.map((line) => `${indent}    ${line}`),
    ...(hint === undefined ? [] : [`${indent}    hint: ${hint}`]),
    ...bad.map((child) => formatResult(child, depth + 1)),
  ].join('\n');
}

/** Checks what can be checked, and only then connects. */
export async function openHost(definition: HostDefinition, on: Chain, data: DataStore): Promise<Connection> {
  // Where only looking tells, it may be native; deploy and plan check again what it is.
  const gives = checkChain(on).at(-1)?.row.gives ?? 'native';
  await checkHost(definition, gives === 'posix' ? 'posix' : 'native', data);
  return await openChain(on, { data: data.forConnections(), agent: agentBundle() });
}

function optionsOf(args: HostArguments): HostOptions & { readonly data: DataStore } {
  return { data: dataStore(args.data), memory: args.memory ? 'keep' : 'none' };
}

const hintOf = (error: Error): { readonly hint?: string } =>
  'hint' in error && typeof error.hint === 'string' ? { hint: error.hint } : {};

/** Names of the modules in image/hosts/. */
function hostNames(): string[] {
  return readdirSync(HOSTS)
    .filter((name) => /^[a-z].*(?<!\.test)\.ts$/.test(name))
    .map((name) => name.slice(0, -'.ts'.length))
    .sort();
}

/** Loads a host by name or path; our programs, if it wants them, are there until `use` ends. */
async function withHost(nameOrPath: string, use: (definition: HostDefinition) => Promise<void>): Promise<void> {
  const isPath = nameOrPath.includes('/') || /\.m?[jt]s$/.test(nameOrPath);
  if (!isPath && !hostNames().includes(nameOrPath)) {
    throw new HostDefinitionError(`There is no host "${nameOrPath}"`, {
      hint: `There are ${hostNames().join(', ')}; or give the path of a module: ./${nameOrPath}.ts`,
    });
  }
  const loaded = await loadHostDefinition(isPath ? nameOrPath : join(HOSTS, `${nameOrPath}.ts`));
  const folder = await mkdtemp(join(tmpdir(), 'buildos-host-'));
  try {
    await use(loaded.define(loaded.wantsInputs ? await imageInputs(folder) : undefined));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** What a definition of an image may refer to, as `image build` gives it. */
async function imageInputs(folder: string): Promise<ImageInputs> {
  const one = async (name: string): Promise<Bundle> =>
    await bundle({ entry: `${name}/main.ts`, outfile: join(folder, `${name}.mjs`) });
  return {
    programs: { 'init.mjs': await one('init'), 'monitor.mjs': await one('monitor'), 'helper.mjs': await one('helper') },
    note: '',
  };
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
