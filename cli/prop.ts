/** `buildos prop`: the properties that there are, and one of them by hand on a host. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Command } from 'commander';
import type { Chain, Json } from '../connections/connection.ts';
import { type Arg, isOptionalArg, typeOf, usageOf } from '../properties/args.ts';
import { unapplied } from '../properties/combinators.ts';
import { deploy } from '../properties/deploy.ts';
import type { HostDefinition } from '../properties/host-definition.ts';
import { formatPlan, planHost } from '../properties/plan.ts';
import { type PropertyApplication, checkApplication, readRegistered, registeredIds } from '../properties/property.ts';
import { formatReport, formatResult, openHost, print, printJson, reportData } from './host.ts';
import { DATA_HELP, dataOption, dataStore, jsonOption, onOption } from './host-options.ts';
import { onInterrupt } from './interrupt.ts';

/** Rooms whose files define properties. */
const FOLDERS = ['../properties', '../image/hosts'];

const ARGS_HELP =
  '\nAn argument is taken as text where the property wants text, otherwise as JSON:' +
  '\n  buildos prop check apt.installed \'["less"]\'' +
  '\n  buildos prop apply file.hasContent /etc/motd Hello \'{"mode":420}\' --on \'((:ssh :host "b1") :sudo)\'';

/** The command with its sub-commands. */
export function propCommand(): Command {
  return new Command('prop')
    .description('list and explain properties; check, apply or unapply one')
    .addCommand(listCommand())
    .addCommand(showCommand())
    .addCommand(actCommand('check', 'whether a property holds on a host: exit status 0 yes, 2 no or unknown'))
    .addCommand(actCommand('apply', 'make a property hold on a host'))
    .addCommand(actCommand('unapply', 'take a property back on a host'));
}

function listCommand(): Command {
  return new Command('list')
    .description('all properties and combinators')
    .addOption(jsonOption())
    .action(async ({ json }: { json?: true }) => {
      await loadProperties();
      const all = registeredIds().map(documentation);
      if (json === true) printJson(all);
      else {
        const width = Math.max(...all.map(({ id }) => id.length));
        print(all.map(({ id, about }) => `${id.padEnd(width)}  ${firstSentence(about)}`).join('\n'));
      }
    });
}

function showCommand(): Command {
  return new Command('show')
    .description('what a property does, its arguments, and whether it can be taken back')
    .argument('[id...]', 'without it: all of them')
    .addOption(jsonOption())
    .action(async (ids: readonly string[], { json }: { json?: true }) => {
      await loadProperties();
      const shown = (ids.length === 0 ? registeredIds() : ids).map((id) => documentation(checkId(id)));
      if (json === true) printJson(ids.length === 1 ? shown[0] : shown);
      else print(shown.map(formatDocumentation).join('\n\n'));
    });
}

interface ActOptions {
  readonly on: Chain;
  readonly data?: readonly string[];
  readonly json?: true;
}

function actCommand(verb: 'check' | 'apply' | 'unapply', summary: string): Command {
  return new Command(verb)
    .description(summary)
    .argument('<id>', 'such as file.hasContent')
    .argument('[args...]', 'its arguments')
    .addOption(onOption())
    .addOption(dataOption())
    .addOption(jsonOption())
    .addHelpText('after', `${ARGS_HELP}\n${DATA_HELP}`)
    .action(async (id: string, words: readonly string[], options: ActOptions) => {
      await loadProperties();
      const application = applicationOf(id, words);
      const definition = hostOf(verb === 'unapply' ? unapplied(application) : application);
      const data = dataStore(options.data);
      await using connection = await openHost(definition, options.on, data);
      if (verb === 'check') {
        const plan = await planHost(definition, connection, { data, memory: 'none' });
        if (options.json === true) printJson(plan);
        else print(formatPlan(plan));
        process.exitCode = plan.outcome === 'ok' ? 0 : 2;
        return;
      }
      using interrupt = onInterrupt();
      const report = await deploy(definition, connection, { data, memory: 'none', signal: interrupt.signal });
      if (options.json === true) printJson(reportData(report));
      else {
        for (const result of report.results) if (result.outcome !== 'ok') print(formatResult(result));
        print(formatReport(report, options.on));
      }
      process.exitCode = report.outcome === 'ok' || report.outcome === 'changed' ? 0 : 1;
    });
}

/** One property is no definition: nothing is remembered of it. */
function hostOf(application: PropertyApplication): HostDefinition {
  return {
    name: 'property',
    summary: 'one property, by hand',
    base: { distribution: 'debian', suite: 'trixie' },
    properties: [application],
  };
}

/** Words of the command line as an application. */
function applicationOf(id: string, words: readonly string[]): PropertyApplication {
  const { definition } = readRegistered(checkId(id));
  const args = definition.args ?? [];
  const a = words.map((word, index): Json => {
    const arg = args[Math.min(index, args.length - 1)];
    if (arg?.schema.safeParse(word).success === true) return word;
    try {
      const value: Json = JSON.parse(word);
      return value;
    } catch {
      return word; // the check below says what it should be
    }
  });
  const application = { p: id, a };
  checkApplication(application);
  return application;
}

/** What is known of a property, as data. */
interface Documentation {
  readonly id: string;
  readonly type: 'property' | 'combinator';
  readonly kind?: 'posix' | 'native';
  readonly usage: string;
  readonly about: string;
  readonly args: readonly {
    readonly name: string;
    readonly type: string;
    readonly optional: boolean;
    readonly about: string;
  }[];
  /** Whether it can look without applying. */
  readonly checks: boolean;
  /** `by its children`: a combinator can be taken back when they can. */
  readonly reversible: 'yes' | 'no' | 'by its children' | 'nothing to take back';
}

function documentation(id: string): Documentation {
  const { type, definition } = readRegistered(id);
  const args: readonly Arg<unknown>[] = definition.args ?? [];
  const shared = {
    id,
    usage: usageOf(id, args),
    about: definition.about ?? '',
    args: args.map((arg) => ({
      name: arg.name,
      type: `${typeOf(arg)}${arg.rest === true ? '…' : ''}`,
      optional: isOptionalArg(arg),
      about: arg.about,
    })),
  };
  if (type === 'combinator') {
    return { ...shared, type, checks: true, reversible: definition.unapply === undefined ? 'no' : 'by its children' };
  }
  const reversible =
    definition.unapply !== undefined ? 'yes' : definition.apply === undefined ? 'nothing to take back' : 'no';
  return { ...shared, type, kind: definition.kind, checks: definition.check !== undefined, reversible };
}

function formatDocumentation(one: Documentation): string {
  const kind = one.kind === undefined ? 'a combinator' : one.kind;
  const check = one.checks ? 'looks before it acts' : 'cannot look, so it acts each time';
  const back =
    one.reversible === 'yes'
      ? 'can be taken back'
      : one.reversible === 'no'
        ? 'cannot be taken back'
        : one.reversible === 'by its children'
          ? 'can be taken back when its properties can'
          : 'only static facts: nothing happens on the host';
  const first = one.reversible === 'nothing to take back' ? [kind, back] : [kind, check, back];
  return [
    one.usage,
    ...(one.about === '' ? [] : [`  ${one.about}`]),
    ...one.args.map(({ name, type, optional, about }) => `    ${name}${optional ? '?' : ''}: ${type}: ${about}`),
    `  ${first.join('; ')}`,
  ].join('\n');
}

const firstSentence = (text: string): string => /^.*?[.;](?=\s|$)/.exec(text)?.[0].replace(/[.;]$/, '') ?? text;

/** An id that is not there. */
class UnknownPropertyError extends Error {
  override readonly name = 'UnknownPropertyError';
  readonly hint: string;

  constructor(id: string) {
    super(`There is no property "${id}"`);
    const word = id.split('.').at(-1)?.toLowerCase() ?? '';
    const near = registeredIds().filter(
      (one) => one.startsWith(`${id.split('.')[0]}.`) || one.toLowerCase().includes(word),
    );
    this.hint = near.length === 0 ? '"buildos prop list" shows all' : `Did you mean ${near.join(', ')}?`;
  }
}

function checkId(id: string): string {
  if (!registeredIds().includes(id)) throw new UnknownPropertyError(id);
  return id;
}

/** Loads every module that defines properties. */
async function loadProperties(): Promise<void> {
  for (const folder of FOLDERS.map((name) => join(import.meta.dirname, name))) {
    for (const name of readdirSync(folder).sort()) {
      if (name.endsWith('.ts') && !/\.test\.ts$|^_toy\.ts$/.test(name))
        await import(pathToFileURL(join(folder, name)).href);
    }
  }
}
