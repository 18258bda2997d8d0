/** What the helper does to a host, as data: printable, comparable. */
import { shellQuote } from '../connections/connection.ts';
import { type TransientUnit, transientArgv } from '../host/systemd.ts';

/** One change. */
export type Step =
  | { readonly kind: 'make-folder'; readonly path: string }
  | { readonly kind: 'snapshot'; readonly source: string; readonly target: string }
  | { readonly kind: 'delete-subvolume'; readonly path: string }
  | { readonly kind: 'make-netns'; readonly netns: string }
  | { readonly kind: 'delete-netns'; readonly netns: string }
  | {
      readonly kind: 'make-link';
      readonly link: string;
      readonly bridge: string;
      readonly netns: string;
      /** the end inside, with address and default route */
      readonly inside: string;
      readonly address: string;
      readonly gateway: string;
    }
  | { readonly kind: 'delete-link'; readonly link: string }
  /** Lets the machine reach its port on the host; a failure is a warning. */
  | { readonly kind: 'open-port'; readonly build: string; readonly address: string; readonly port: number }
  | { readonly kind: 'close-port'; readonly address: string; readonly port: number }
  | { readonly kind: 'start-transient'; readonly unit: TransientUnit }
  | { readonly kind: 'kill-unit'; readonly unit: string }
  | { readonly kind: 'start-unit'; readonly unit: string }
  | { readonly kind: 'stop-unit'; readonly unit: string }
  | { readonly kind: 'restart-unit'; readonly unit: string }
  | { readonly kind: 'forget-unit'; readonly unit: string }
  /** Removes folders that may be there, if they are empty. */
  | { readonly kind: 'remove-folders'; readonly paths: readonly string[] }
  | { readonly kind: 'set-hostname'; readonly name: string }
  | { readonly kind: 'reboot'; readonly reason: string };

/** A step as one line of a log. */
export function describe(step: Step): string {
  switch (step.kind) {
    case 'make-folder':
      return `make folder ${step.path}`;
    case 'snapshot':
      return `snapshot ${step.source} as ${step.target}`;
    case 'delete-subvolume':
      return `delete subvolume ${step.path}`;
    case 'make-netns':
      return `make network namespace ${step.netns}`;
    case 'delete-netns':
      return `delete network namespace ${step.netns}`;
    case 'make-link':
      return (
        `make link ${step.link} on ${step.bridge} (isolated) to ${step.inside} in ${step.netns}: ` +
        `${step.address} via ${step.gateway}`
      );
    case 'delete-link':
      return `delete link ${step.link}`;
    case 'open-port':
      return `open UDP port ${step.port} to ${step.address} (${step.build})`;
    case 'close-port':
      return `close UDP port ${step.port} to ${step.address}`;
    case 'start-transient':
      return `run ${shellQuote(transientArgv(step.unit))}`;
    case 'kill-unit':
      return `kill all of ${step.unit}`;
    case 'start-unit':
      return `start ${step.unit}`;
    case 'stop-unit':
      return `stop ${step.unit}`;
    case 'restart-unit':
      return `restart ${step.unit}`;
    case 'forget-unit':
      return `forget the failure of ${step.unit}`;
    case 'remove-folders':
      return `remove empty folders ${step.paths.join(' ')}`;
    case 'set-hostname':
      return `set the host name ${step.name}`;
    case 'reboot':
      return `reboot: ${step.reason}`;
    default:
      return step satisfies never;
  }
}
