/**
 * A combinator: a property made of properties, and what it may do with them when it is applied and when it is planned.
 * Combinators are defined by `defineCombinator` (property.ts); what walks is work.ts and planner.ts.
 */
import type { Hop } from '../connections/connection.ts';
import type { ArgsOf } from './args.ts';
import type { FactRequest } from './facts.ts';
import type { HostDefinition } from './host-definition.ts';
import type { HostReader, HostWriter, Outcome, PropertyApplication } from './property.ts';

/** What a combinator may do with its children; deploy provides it. */
export interface Walk {
  /** Checks and, if need be, applies a child; its report goes below the combinator's. Failures are thrown. */
  apply(child: PropertyApplication): Promise<Outcome>;
  unapply(child: PropertyApplication): Promise<Outcome>;
  /** Whether a child surely holds already: applying it would change nothing. */
  holds(child: PropertyApplication): Promise<boolean>;
  /** Notes that a child was not tried. */
  skip(child: PropertyApplication): void;
  /** Has a child applied when all else was, once for each key; a run that dies before that leaves it to the next. */
  atEnd(key: string, child: PropertyApplication): Promise<void>;
  /** Debts, which outlive this run. */
  readonly debts: Debts;
  /** The same, but through more hops. */
  through(hops: readonly Hop[]): Promise<Walk & AsyncDisposable>;
  /** Deploys another host through more hops. */
  deploy(hops: readonly Hop[], host: HostDefinition): Promise<Outcome>;
  /** Whether the work was aborted: go on with nothing. */
  readonly aborted: boolean;
  readonly host: HostWriter;
}

/** What is still to be done after a change, written down on the host by a key. */
export interface Debts {
  isOwed(key: string): boolean;
  /** Written to the disk before this returns. */
  owe(key: string): Promise<void>;
  pay(key: string): Promise<void>;
}

/** What a plan says of one property. */
export interface PlannedProperty {
  readonly application: PropertyApplication;
  readonly description: string;
  /** What deploy would do with it. */
  readonly action: 'apply' | 'unapply';
  /** `unknown`: only trying tells. */
  readonly state: 'ok' | 'change' | 'unknown';
  /** What would change, for people; may be empty. */
  readonly lines: readonly string[];
}

/** What a combinator may do when it plans. */
export interface PlanWalk {
  readonly host: HostReader;
  readonly debts: Pick<Debts, 'isOwed'>;
  plan(child: PropertyApplication): Promise<readonly PlannedProperty[]>;
  /** Plans to take a child back. */
  planUnapplied(child: PropertyApplication): Promise<readonly PlannedProperty[]>;
  /** Plans a child at the end, once for each key. */
  atEnd(key: string, child: PropertyApplication): void;
  /** The same, but through more hops. */
  through(hops: readonly Hop[]): Promise<PlanWalk & AsyncDisposable>;
  /** Plans another host through more hops. */
  planHost(hops: readonly Hop[], host: HostDefinition): Promise<readonly PlannedProperty[]>;
}

/** A property made of properties. */
export interface CombinatorDefinition<A extends readonly unknown[]> {
  readonly id: string;
  readonly about?: string;
  readonly example?: A;
  readonly args?: ArgsOf<A>;
  describe(...args: A): string;
  refuse?(...args: A): void;
  /** All children, in order: for facts, for data, and for finding what is native. */
  children(...args: A): readonly PropertyApplication[];
  /** The children whose static facts hold on the host; default all. */
  attrsFrom?(...args: A): readonly PropertyApplication[];
  /** Nothing but its children: it holds when all of them do, and they leave the definition one by one. */
  readonly transparent?: true;
  /** It writes debts down, so what earlier runs owe has to be known. */
  readonly owes?: true;
  /** Children as a plan lists them; default all, one by one. */
  plan?(walk: PlanWalk, ...args: A): Promise<readonly PlannedProperty[]>;
  /** The opposite as a plan lists it; default all children taken back, the last first. */
  planUnapplied?(walk: PlanWalk, ...args: A): Promise<readonly PlannedProperty[]>;
  /** What the combinator itself wants to know. */
  facts?(...args: A): readonly FactRequest[];
  apply(walk: Walk, ...args: A): Promise<Outcome>;
  /** Takes it back; possible only when the children that it takes back say how. */
  unapply?(walk: Walk, ...args: A): Promise<Outcome>;
  /** The children that unapply takes back; default all. */
  unapplies?(...args: A): readonly PropertyApplication[];
  /** The children that hold afterwards, and are gone when it leaves the definition; default those of attrsFrom. */
  keeps?(...args: A): readonly PropertyApplication[];
}
