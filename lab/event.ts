/**
 * What happens in the lab, from all sides, on one clock: milliseconds since 1970 of the machine that runs the lab.
 */
import type { DhcpEvent } from '../host/dnsmasq.ts';

/** An event of one of the lab's services. */
export type LabEvent =
  | ({ readonly source: 'dhcp'; readonly atMs: number } & DhcpEvent)
  | {
      readonly source: 'tftp';
      /** When the transfer ended. */
      readonly atMs: number;
      readonly durationMs: number;
      readonly name: string;
      readonly peer: string;
      readonly bytes: number;
      readonly result: 'done' | 'failed';
      readonly error?: string;
    }
  | {
      readonly source: 'http';
      /** When the answer ended, or the connection broke. */
      readonly atMs: number;
      readonly durationMs: number;
      readonly method: string;
      readonly path: string;
      readonly status: number;
      readonly bytes: number;
      readonly peer: string;
      readonly complete: boolean;
    }
  | { readonly source: 'controller'; readonly atMs: number; readonly line: string }
  | { readonly source: 'problem'; readonly atMs: number; readonly message: string };

/** What the machinery of a guest says. */
export type GuestEvent =
  | { readonly source: 'console'; readonly atMs: number; readonly line: string }
  | {
      readonly source: 'qemu';
      readonly atMs: number;
      /** `start`: the process runs; `reset`: the guest rebooted, or was told to; `exit`: the process has ended. */
      readonly what: 'start' | 'reset' | 'shutdown' | 'panic' | 'exit';
      readonly detail?: string;
    };
