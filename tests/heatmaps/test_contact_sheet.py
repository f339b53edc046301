import numpy as np

from e2e_abmilx.heatmaps import SlideAttention, draw_contact_sheet


def test_contact_sheet_shows_both_ends_with_their_coordinates(attention: SlideAttention) -> None:
    figure = draw_contact_sheet(attention)
    shown = [axes for axes in figure.axes if axes.get_images()]
    captions = [axes.texts[0].get_text() for axes in shown]
    assert len(captions) == len(set(captions))
    fine = np.flatnonzero(attention.scale == 0)
    highest = fine[attention.mean()[fine].argmax()]
    x, y = attention.coords[highest]
    assert captions[0].startswith(f"({x}, {y})\n")
    assert captions[0].endswith(f"rank {attention.rank()[highest]}")
    pixels = shown[0].get_images()[0].get_array()
    assert np.array_equal(pixels, attention.store.read([highest])[0])
    headings = [title for axes in figure.axes if (title := axes.get_title(loc="left"))]
    assert [heading.split()[0] for heading in headings] == ["highest", "lowest"] * 2


def test_contact_sheet_of_contributions_shows_the_highest_and_the_lowest(contributing: SlideAttention) -> None:
    figure = draw_contact_sheet(contributing, kind="contribution")
    headings = [title for axes in figure.axes if (title := axes.get_title(loc="left"))]
    assert headings[:2] == [
        f"{end} contribution to the log-odds of tumour at 0.5 µm/px" for end in ("highest", "lowest")
    ]
    shown = [axes.texts[0].get_text() for axes in figure.axes if axes.texts]
    values = contributing.known_contribution().values
    for caption, extreme in ((shown[0], np.argmax), (shown[12], np.argmin)):
        patch = int(extreme(np.where(contributing.scale == 0, values, 0)))
        x, y = contributing.coords[patch]
        assert caption.startswith(f"({x}, {y})\n{values[patch]:+.3g}, rank {(values > values[patch]).sum() + 1}")


def test_a_coarse_patch_is_read_from_its_own_scale(attention: SlideAttention) -> None:
    coarse = np.flatnonzero(attention.scale == 1)
    highest = coarse[attention.mean()[coarse].argmax()]
    (axes,) = [
        axes
        for axes in draw_contact_sheet(attention).axes
        if axes.texts and axes.texts[0].get_text().endswith(f"rank {attention.rank()[highest]}")
    ]
    pixels = axes.get_images()[0].get_array()
    assert np.array_equal(pixels, attention.store.read([highest - coarse[0]], scale=1)[0])
