// The person's own menu: look, language, sign out.
import { Button as AriaButton, Menu, MenuItem, MenuSection, Header, MenuTrigger, Popover, Separator } from 'react-aria-components';
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';
import type { User } from '../../core/api/types';
import { LANGUAGES, switchLanguage, type Language } from '../../core/i18n/i18n';
import { readTheme, saveTheme, type Theme } from '../../theme/theme';
import type { MessageKey } from '../../core/i18n/i18n';
import { Avatar } from '../../ui/parts';
import { Icon } from '../../ui/Icon';
import { useLanguage, useT } from '../../ui/store';
import { hub } from '../hub';
import { prefer, preferLanguage } from './useOwnLook';

const THEMES: Record<Theme, MessageKey> = { auto: 'menu.theme_auto', light: 'menu.theme_light', dark: 'menu.theme_dark' };

export function UserMenu({ user }: { user: User }) {
  const t = useT();
  const language = useLanguage();
  const navigate = useNavigate();
  const [theme, setTheme] = useState<Theme>(readTheme);
  return (
    <MenuTrigger>
      <AriaButton className="user-btn" data-testid="user-menu">
        <Avatar name={user.name} size="s" /><span>{user.name}</span><span className="sr-only">{t('menu.open')}</span><Icon name="more" size={18} />
      </AriaButton>
      <Popover className="popover" placement="top start">
        <Menu className="menu">
          <MenuSection className="menu-section" selectionMode="single" selectedKeys={[theme]}
            onSelectionChange={(keys) => { const next = [...keys][0] as Theme | undefined; if (next) { saveTheme(next); setTheme(next); void prefer({ theme: next }).catch(() => undefined); } }}>
            <Header className="menu-head">{t('menu.theme')}</Header>
            {(Object.keys(THEMES) as Theme[]).map((key) => <MenuItem key={key} id={key} className="menu-item">{t(THEMES[key])}</MenuItem>)}
          </MenuSection>
          <Separator className="menu-line" />
          <MenuSection className="menu-section" selectionMode="single" selectedKeys={[language]}
            onSelectionChange={(keys) => { const next = [...keys][0] as Language | undefined; if (next) void switchLanguage(next).then(() => preferLanguage(next)).catch(() => undefined); }}>
            <Header className="menu-head">{t('common.language')}</Header>
            {Object.entries(LANGUAGES).map(([key, name]) => <MenuItem key={key} id={key} className="menu-item">{name}</MenuItem>)}
          </MenuSection>
          <Separator className="menu-line" />
          <MenuItem className="menu-item" onAction={() => void navigate({ to: '/app/account/profile' })} data-testid="my-account">{t('account.title')}</MenuItem>
          <MenuItem className="menu-item" onAction={() => void navigate({ to: '/app/account/security' })} data-testid="menu-security">{t('security.title')}</MenuItem>
          <MenuItem className="menu-item" onAction={() => void hub.signOut()} data-testid="sign-out">{t('menu.sign_out')}</MenuItem>
        </Menu>
      </Popover>
    </MenuTrigger>
  );
}
