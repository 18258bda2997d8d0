/**
 * Debts: what is still to be done after a change, written down on the host before the change, so that whatever ends this
 * run leaves it to the next. One empty file a debt; those of `atEnd` hold the application that is owed.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Connection } from '../connections/connection.ts';
import { OWN } from './_file-change.ts';
import type { FactRequest, FactStore } from './facts.ts';
import { canonicalJson } from './canonical-json.ts';
import { APPLICATION, type PropertyApplication } from './property.ts';
import type { Debts } from './walk.ts';

/** What is owed at the end of a run. */
const END = z.strictObject({ key: z.string(), application: APPLICATION });

/** The debts of one host. */
export class DebtBook implements Debts {
  /** What load() wants to know, to be looked up with other facts. */
  readonly wants: readonly FactRequest[];
  readonly #folder: string;
  readonly #run: Connection['run'];
  readonly #owed = new Set<string>();

  constructor(state: string, run: Connection['run']) {
    this.#folder = `${state}/debts`;
    this.#run = run;
    this.wants = [{ fact: 'names', path: this.#folder }];
  }

  /**
   * Learns what runs before this one left to do.
   *
   * @param facts - that hold what is in `wants`
   * @returns what is owed at the end, by its key; what cannot be read is left alone
   */
  async load(facts: FactStore): Promise<ReadonlyMap<string, PropertyApplication>> {
    const names = facts.names(this.#folder).filter((name) => !name.endsWith('.tmp'));
    for (const name of names) this.#owed.add(name);
    const paths = names.filter((name) => name.startsWith('end-')).map((name) => `${this.#folder}/${name}`);
    await facts.ensure(
      paths.map((path) => ({ fact: 'text', path })),
      [],
    );
    const ends = new Map<string, PropertyApplication>();
    for (const path of paths) {
      const parsed = END.safeParse(parseJson(facts.text(path) ?? ''));
      if (parsed.success) ends.set(parsed.data.key, parsed.data.application);
    }
    return ends;
  }

  isOwed(key: string): boolean {
    return this.#owed.has(key);
  }

  async owe(key: string): Promise<void> {
    if (!this.isOwed(key)) await this.#write(key, '');
  }

  async pay(key: string): Promise<void> {
    if (!this.isOwed(key)) return;
    const script = 'rm -f -- "$2" && rmdir --ignore-fail-on-non-empty -- "$1"';
    await this.#run(['sh', '-c', script, 'paid', this.#folder, `${this.#folder}/${key}`], OWN);
    this.#owed.delete(key);
  }

  /** Writes down that an application is owed at the end. */
  async oweEnd(key: string, { p, a }: PropertyApplication): Promise<void> {
    if (!this.isOwed(endName(key))) await this.#write(endName(key), canonicalJson({ key, application: { p, a } }));
  }

  async payEnd(key: string): Promise<void> {
    await this.pay(endName(key));
  }

  async #write(name: string, content: string): Promise<void> {
    // The name comes last and after a sync: a debt is there whole or not at all.
    const script = 'umask 077; mkdir -p "$1" && cat > "$2.tmp" && sync "$2.tmp" && mv -f "$2.tmp" "$2" && sync "$1"';
    await this.#run(['sh', '-c', script, 'owe', this.#folder, `${this.#folder}/${name}`], { ...OWN, input: content });
    this.#owed.add(name);
  }
}

const endName = (key: string): string => `end-${createHash('sha256').update(key).digest('hex').slice(0, 32)}`;

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
