/** Rules and alerts as Prometheus' API tells them. */
import type { Labels } from './api';

export interface Alert { labels: Labels; annotations: Labels; state: 'pending' | 'firing' | 'inactive'; activeAt?: string; keepFiringSince?: string; value: string }
export interface Rule {
  type: 'alerting' | 'recording'; name: string; query: string; duration?: number; keepFiringFor?: number; labels?: Labels; annotations?: Labels; alerts?: Alert[];
  health: 'ok' | 'err' | 'unknown'; lastError?: string; evaluationTime: number; lastEvaluation: string; state?: 'firing' | 'pending' | 'inactive' | 'unknown';
}
export interface Group { name: string; file: string; interval: number; limit?: number; rules: Rule[]; evaluationTime: number; lastEvaluation: string
  /** Hearth's own: how late the last evaluation began, in seconds, and what it cost. */
  lag?: number; samplesRead?: number; seriesWritten?: number; slotsMissed?: number; slotsFilled?: number }
export interface Rules { groups: Group[] }
export const STATES = ['firing', 'pending', 'inactive'] as const;
export const never = (t: string | undefined) => !t || t.startsWith('0001-');
