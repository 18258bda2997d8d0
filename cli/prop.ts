/** `buildos prop`: the properties that there are, and one of them by hand on a host. */
import { Command } from 'commander';
import type { Chain, Json } from '../connections/connection.ts';
import { findNearest } from '../host/nearest-name.ts';
import { type CatalogueEntry, loadCatalogue } from '../properties/catalogue.ts';
import { unapplied } from '../properties/combinators.ts';
import { deploy } from '../properties/deploy.ts';
import type { HostDefinition } from '../properties/host-definition.ts';
import { formatPlan, planHost } from '../properties/plan.ts';
import { type PropertyApplication, checkApplication, readRegistered } from '../properties/property.ts';
import { formatReport, formatResult, openHost, print, printJson, reportData } from './host.ts';
import { DATA_HELP, dataOption, dataStore, jsonOption, onOption } from './host-options.ts';
import { onInterrupt } from './interrupt.ts';

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
      const all = [...(await loadCatalogue()).values()];
      if (json === true) printJson(all);
      else print(formatList(all));
    });
}

function showCommand(): Command {
  return new Command('show')
    .description('what a property does, its arguments, and whether it can be taken back')
    .argument('[id...]', 'without it: all of them')
    .addOption(jsonOption())
    .action(async (ids: readonly string[], { json }: { json?: true }) => {
      const all = await loadCatalogue();
      const shown = ids.length === 0 ? [...all.values()] : ids.map((id) => entryOf(all, id));
      if (json === true) printJson(ids.length === 1 ? shown[0] : shown);
      else print(shown.map(formatEntry).join('\n\n'));
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
      entryOf(await loadCatalogue(), id);
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
  const { definition } = readRegistered(id);
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

/** A line each: combinators, whose names have no dot, after the properties. */
function formatList(all: readonly CatalogueEntry[]): string {
  const width = Math.max(...all.map(({ id }) => id.length));
  const linesOf = (dotted: boolean): string[] =>
    all.filter(({ id }) => id.includes('.') === dotted).map(({ id, summary }) => `${id.padEnd(width)}  ${summary}`);
  return [...linesOf(true), '', ...linesOf(false)].join('\n');
}

const BACK: Readonly<Record<CatalogueEntry['reversible'], string>> = {
  yes: 'can be taken back',
  no: 'cannot be taken back',
  'by its children': 'can be taken back when its properties can',
  'nothing to take back': 'only static facts: nothing happens on the host',
};

function formatEntry(one: CatalogueEntry): string {
  const check = one.checks ? 'looks before it acts' : 'cannot look, so it acts each time';
  const kinds = [
    one.kind ?? (one.id.includes('.') ? 'a list of properties' : 'a combinator'),
    ...(one.reversible === 'nothing to take back' ? [] : [check]),
    BACK[one.reversible],
  ];
  const { imports = [], code } = one.example ?? {};
  return [
    one.usage,
    `  ${one.about}`,
    ...one.args.map(({ name, type, optional, about }) => `    ${name}${optional ? '?' : ''}: ${type}: ${about}`),
    `  ${kinds.join('; ')}`,
    ...(code === undefined ? [] : ['  example:', ...imports.map((line) => `    ${line}`), `    ${code}`]),
  ].join('\n');
}

/** An id that is not there. */
class UnknownPropertyError extends Error {
  override readonly name = 'UnknownPropertyError';
  readonly hint: string;

  constructor(id: string, known: readonly string[]) {
    super(`There is no property "${id}"`);
    const word = id.split('.').at(-1)?.toLowerCase() ?? '';
    const like = known.filter((one) => one.startsWith(`${id.split('.')[0]}.`) || one.toLowerCase().includes(word));
    // The nearest first; the others are what the reader may have had in mind.
    const near = [...new Set([findNearest(id, known) ?? [], like].flat())];
    this.hint = near.length === 0 ? '"buildos prop list" shows all' : `Did you mean ${near.join(', ')}?`;
  }
}

function entryOf(all: ReadonlyMap<string, CatalogueEntry>, id: string): CatalogueEntry {
  const found = all.get(id);
  if (found === undefined) throw new UnknownPropertyError(id, [...all.keys()]);
  return found;
}
